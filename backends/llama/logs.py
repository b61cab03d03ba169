"""llama.cpp's own log: kept off the terminal, its last lines kept for error messages."""

import ctypes
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp

KEEP_LINES = 40

_ERROR = 4

_lines: deque[str] = deque(maxlen=KEEP_LINES)
_collections: list[list[str]] = []
_errors: deque[str] = deque(maxlen=KEEP_LINES)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp is untyped
def _take(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    line = text.decode(errors="replace").strip()
    for collection in _collections:
        collection.append(line)
    if line.strip("."):
        (_errors if level == _ERROR else _lines).append(line)


def capture() -> None:
    """From now on llama.cpp logs here. Forgets what was logged before."""
    forget()
    llama_cpp.llama_log_set(_take, ctypes.c_void_p(0))


def capture_mtmd() -> None:
    """From now on mtmd, which reads pictures and sounds, logs here too."""
    from llama_cpp import mtmd_cpp

    forget()
    mtmd_cpp.mtmd_helper_log_set(_take, ctypes.c_void_p(0))


def forget() -> None:
    """What was logged until now is no reason for what comes."""
    _lines.clear()
    _errors.clear()


@contextmanager
def collected() -> Iterator[list[str]]:
    """Every line logged meanwhile."""
    lines: list[str] = []
    _collections.append(lines)
    try:
        yield lines
    finally:
        _collections.remove(lines)


def last_error() -> str:
    """The most telling of the last lines: the first error, for those after it only repeat it."""
    if _errors:
        return _errors[0].partition(": ")[2] or _errors[0]
    return _lines[-1] if _lines else "llama.cpp gave no reason"
