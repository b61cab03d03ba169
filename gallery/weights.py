"""Which files in a folder are models, and which belong together.

qwen.gguf                      one model, "qwen"
big-00001-of-00003.gguf ...    one model, "big", in three files
mmproj-qwen.gguf               no model: a projector that goes with one
sdxl/model_index.json          one model, "sdxl": a folder of diffusers
"""

import re
from collections.abc import Iterator
from pathlib import Path

from gallery.errors import WeightsError

SUFFIX = ".gguf"

PIPELINE_INDEX = "model_index.json"
"""What makes a folder a pipeline of diffusers."""

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def model_name(file_name: str) -> str | None:
    """The name of the model whose first file this is; None for every other file."""
    if not file_name.lower().endswith(SUFFIX) or file_name.startswith("."):
        return None
    stem = file_name[: -len(SUFFIX)]
    if "mmproj" in stem.lower():
        return None
    part = _PART.match(stem)
    if part is None:
        return stem
    return part["stem"] if int(part["number"]) == 1 else None


def projector_name(file_name: str) -> str | None:
    """The name of the projector that this file is; None for every other file."""
    if not file_name.lower().endswith(SUFFIX) or file_name.startswith("."):
        return None
    stem = file_name[: -len(SUFFIX)]
    return stem if "mmproj" in stem.lower() else None


def part_paths(first: Path) -> tuple[Path, ...]:
    """All files of the model whose first file is `first`, in order, whether they are there or not."""
    part = _PART.match(first.stem)
    if part is None:
        return (first,)
    count = int(part["count"])
    return tuple(
        first.with_name(f"{part['stem']}-{number:05}-of-{count:05}{first.suffix}") for number in range(1, count + 1)
    )


def check_parts(first: Path) -> None:
    """Raises:
    WeightsError: a file of the model is missing.
    """
    paths = part_paths(first)
    for number, path in enumerate(paths, start=1):
        if not path.exists():
            reason = "is missing" if len(paths) == 1 else f"is missing: part {number} of {len(paths)}"
            raise WeightsError(path, reason)


def is_pipeline(path: Path) -> bool:
    """Whether that is a folder with a pipeline of diffusers."""
    return (path / PIPELINE_INDEX).is_file()


def weight_files(first: Path) -> Iterator[Path]:
    """Every file of the weights that begin with `first`: its parts, or all that is in a folder, by name."""
    for path in part_paths(first):
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path
