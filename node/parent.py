"""Ending with the parent: `shoal demo` and the tests set `SHOAL_EXIT_WITH_PARENT`, so that no node of theirs
outlives them, however they end."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """SIGTERM for this process when its parent dies, if the variable says so. Linux only; elsewhere nothing."""
    if os.environ.pop("SHOAL_EXIT_WITH_PARENT", None) and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
