"""One backend process: spawned, watched, signalled.

Spawn from the main thread only: a parent-death signal follows the *thread* that spawned the child, so
a backend spawned from a helper thread dies when that thread ends.

The end of the process is noticed by a thread that waits for it, not by polling: within a millisecond
on any platform and event loop. The thread ends with the process.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gallery.engines import Program
from node.backend_log import BackendLog

PACKAGES_DIR = Path(__file__).resolve().parent.parent
"""Where our packages are: the checkout, or site-packages."""

FINAL_STATUSES = frozenset({2, 3})
"""Exit statuses of `python -m backends` that another try would only repeat: wrong arguments or an unknown
engine, and an engine whose package is not installed."""

SECRETS = frozenset({"SHOAL_TOKEN", "SHOAL_API_KEY"})

READ_BYTES = 64 * 1024
MAX_READS = 16
"""What one look at the pipe takes at most, so that a backend that prints without end cannot hold the loop."""


def default_program(engine: str) -> Program:
    """What serves `engine` where nobody says otherwise: our package, in the node's own environment."""
    # -P: nothing in the working folder may pose as a module.
    return Program((sys.executable, "-P", "-m", "backends", engine))


def environment(inherited: Mapping[str, str], *, needs_path: bool = True) -> dict[str, str]:
    """What a backend finds in its environment: ours without the mesh's secrets, and if need be the way to our
    packages. An environment of its own knows that way already, and there its own packages go first."""
    kept = {name: value for name, value in inherited.items() if name not in SECRETS}
    if needs_path:
        kept["PYTHONPATH"] = os.pathsep.join([str(PACKAGES_DIR), *filter(None, [inherited.get("PYTHONPATH")])])
    # Unbuffered, or the last words of a backend that is killed never reach the log.
    return {**kept, "PYTHONUNBUFFERED": "1"}


class BackendProcess:
    """A running process. Everything it prints goes to `log`; `on_exit` is called once, in the loop."""

    def __init__(
        self,
        program: Program,
        address: Sequence[str],
        log: BackendLog,
        on_exit: Callable[["BackendProcess"], None],
    ) -> None:
        """Starts the process: an instance *is* a process. `address` are the arguments that say where to listen.

        Raises:
            OSError: it could not be started.
        """
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._on_exit = on_exit
        self._output, theirs = os.pipe()
        try:
            os.set_blocking(self._output, False)
            self._popen = subprocess.Popen(
                [*program.command, *address],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                cwd=program.folder,
                env=environment(os.environ, needs_path=program.needs_path),
                # A Ctrl-C in the terminal is for the node, which then drains its backends.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(theirs)
        self._loop.add_reader(self._output, self._read)
        self._is_reading = True
        threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_reason(self) -> str:
        """How it ended, in words: "killed by SIGKILL", "exit status 1"."""
        status = self._popen.returncode
        if status is None:
            return "still running"
        if status >= 0:
            return f"exit status {status}"
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"

    @property
    def is_exit_final(self) -> bool:
        """Whether it ended by saying that it can never run here."""
        return self._popen.returncode in FINAL_STATUSES

    def terminate(self) -> None:
        """Ask it to end."""
        # Not `Popen.terminate`: it looks first whether the process has ended, and buries it before `_wait` saw it.
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and whatever it started."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            # Left unreaped, so that its number stays its own until the loop has sent its last signal.
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()
        # The loop may be gone: then nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        # Helpers that it started must not outlive it.
        self.kill()
        self._popen.wait()
        self._read()
        self._stop_reading()
        self._on_exit(self)

    def _read(self) -> None:
        """Take what is in the pipe now. Never waits: a helper of the engine may hold the other end."""
        for _ in range(MAX_READS):
            if not self._is_reading:
                return
            try:
                data = os.read(self._output, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._stop_reading()
                return
            self._log.write(data)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._output)
            os.close(self._output)
