"""How to call this program in the terminal it was started from."""

import os
import shutil
import sys
from pathlib import Path

from node.config import default_data_dir


def data_flag(data: Path) -> str:
    """What a command needs to find the same data folder."""
    return "" if data == default_data_dir() else f" --data {data}"


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
