"""What pip prints while it installs, understood as far as a person wants to know it. Pure.

Collecting torch==2.13.0 (from -r …)          a package begins
Progress 1048576 of 900000000                 bytes of the file that is fetched (`--progress-bar raw`)
Installing collected packages: torch, …       everything is here; it is being unpacked
ERROR: …                                      why not; the first is the cause
"""

import re
from dataclasses import dataclass, field

_BEGIN = re.compile(r"(?:Collecting|Processing|Requirement already satisfied:)\s+(\S+)")
_PROGRESS = re.compile(r"Progress (\d{1,15}) of (\d{1,15})\s*\Z")
_NOISE = ("Could not find a version", "Ignored the following")


@dataclass(slots=True)
class PipOutput:
    """What was read so far."""

    packages: int
    """How many are wanted."""
    begun: int = 0
    doing: str = ""
    fetched: int = 0
    size: int = 0
    """Bytes of all files so far, as far as pip tells them: packages from its cache count nothing."""
    errors: list[str] = field(default_factory=list)
    _now: tuple[int, int] = (0, 0)

    @property
    def stage(self) -> str:
        """What it does, in a few words."""
        return self.doing

    def read(self, line: str) -> bool:
        """Takes in one line; whether that is worth telling."""
        line = line.strip()
        if found := _BEGIN.match(line):
            self._end_file()
            self.begun += 1
            name = re.split(r"[=<>!~;\[]", found[1].rsplit("/", 1)[-1])[0].split("-")[0]
            self.doing = f"package {self.begun} of {max(self.packages, self.begun)}: {name[:60]}"
        elif found := _PROGRESS.match(line):
            self._now = int(found[1]), int(found[2])
        elif line.startswith("Building wheel"):
            self.doing = f"compiling {line.removeprefix('Building wheel for ').split()[0][:60]}"
        elif line.startswith("Installing collected"):
            self._end_file()
            self.doing = "unpacking"
        elif line.startswith("ERROR:"):
            self.errors.append(line.removeprefix("ERROR:").strip())
            return False
        else:
            return False
        return True

    def bytes(self) -> tuple[int, int]:
        """Fetched, and the size of what was begun."""
        return self.fetched + self._now[0], self.size + self._now[1]

    def reason(self) -> str:
        """Why it failed, in one line."""
        telling = [error for error in self.errors if not error.startswith(_NOISE)] or self.errors
        return telling[0][:500] if telling else "pip ended without saying why"

    def code(self) -> str:
        """Which kind of trouble that is, as installs tell it."""
        told = " ".join(self.errors).lower()
        if "no matching distribution" in told:
            return "not_found"
        if "no space left" in told:
            return "disk_full"
        if any(word in told for word in ("connection", "timed out", "name resolution", "max retries")):
            return "unreachable"
        return "failed"

    def _end_file(self) -> None:
        self.fetched += self._now[0]
        self.size += self._now[1]
        self._now = 0, 0
