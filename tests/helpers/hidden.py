"""A Python without some package that the tests' own environment has."""

from pathlib import Path


def hiding(folder: Path, package: str) -> Path:
    """A folder for PYTHONPATH: processes that have it there cannot find `package`."""
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.modules[{package!r}] = None\n")
    return folder
