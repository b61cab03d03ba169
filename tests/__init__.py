"""Tests, mirrored by package; `e2e` runs real processes."""
