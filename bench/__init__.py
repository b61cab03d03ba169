"""Measures Shoal against yardsticks taken in the same run: `make bench`."""
