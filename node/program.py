"""How to call this program in the terminal it was started from."""

import os
import shutil
import sys
from pathlib import Path


def program() -> str:
    """`shoal` where that is on the PATH, else the path of the one in this environment."""
    if shutil.which("shoal"):
        return "shoal"
    own = Path(sys.executable).with_name("shoal")
    try:
        relative = own.relative_to(Path.cwd())
    except ValueError:
        return str(own)
    return os.fspath(relative)
