"""For all tests."""

from hypothesis import settings

# No test is timed: machines are shared and noisy.
settings.register_profile("shoal", deadline=None)
settings.load_profile("shoal")
