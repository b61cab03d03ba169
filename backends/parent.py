"""End with the node: a backend whose parent is gone must not stay behind.

On Linux the kernel does it (PR_SET_PDEATHSIG). It watches the *thread* that started us, so a node
spawns backends from a thread that lives as long as itself. Elsewhere a thread asks for the parent's
id a few times a second.
"""

import ctypes
import os
import signal
import sys
import threading
import time

POLL_EVERY = 0.25
"""Seconds between two looks at the parent where the kernel does not tell us."""

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Arrange that this process is killed when the process `parent_pid`, its parent, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent_pid,), name="parent", daemon=True).start()
    # The parent may have ended before the kernel was asked; then nobody would ever tell us.
    if os.getppid() != parent_pid:
        raise SystemExit(f"backends: process {parent_pid}, which should be my parent, is gone")


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(POLL_EVERY)
    os.kill(os.getpid(), signal.SIGKILL)
