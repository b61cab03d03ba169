"""Tests of the built-in language model: how it is made, and what it knows."""
