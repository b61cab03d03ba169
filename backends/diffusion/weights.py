"""What lies in a pipeline folder or checkpoint file, looked at before any of it is loaded or run.

    folder/model_index.json                    which class, which parts
    folder/unet/config.json                    one part
    folder/unet/*.safetensors                  its weights; *.fp16.safetensors: the same in half precision

Rules:

1. Safetensors only, unless pickles are allowed: reading those runs what is in them.
2. No code out of a folder is ever run.
3. Every safetensors file is as long as its header says: a broken download is named, not half loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from backends.errors import ModelFileError

INDEX = "model_index.json"
MAX_JSON = 8 * 1024 * 1024
MAX_HEADER = 100 * 1024 * 1024
"""Bytes of a safetensors header; the format's own limit."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that can be loaded."""

    path: Path
    class_name: str = ""
    """Of the pipeline; empty for a single file."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Number of weights by part."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configuration by part."""
    variant: str | None = None
    """"fp16" where there are only such files."""
    libraries: frozenset[str] = frozenset()
    """Where the classes of its parts are said to be."""

    @property
    def is_folder(self) -> bool:
        return bool(self.class_name)


def look_at(path: Path, *, allow_pickle: bool) -> Weights:
    """Raises:
    ModelFileError: it is missing, broken, of no known kind, or would have to be trusted.
    """
    if path.is_dir():
        return _folder(path, allow_pickle)
    if not path.is_file():
        raise ModelFileError(f"{path}: is missing")
    suffix = path.suffix.lower()
    if suffix == WEIGHTS:
        return Weights(path, values={"checkpoint": _count(path)})
    if suffix in PICKLES:
        check_pickle(path, allow_pickle)
        return Weights(path, values={"checkpoint": path.stat().st_size // 2})
    raise ModelFileError(f"{path}: is neither a pipeline folder nor a .safetensors checkpoint")


def check_pickle(path: Path, allow_pickle: bool) -> None:
    """Raises ModelFileError for a pickled file, unless they are allowed."""
    if path.suffix.lower() in PICKLES and not allow_pickle:
        raise ModelFileError(
            f"{path}: is a pickled checkpoint, which can run any program when it is read; take a .safetensors version,"
            " or say `allow_pickle: true` in the model's settings if you trust its author"
        )


def _folder(path: Path, allow_pickle: bool) -> Weights:
    index = _json(path / INDEX, f"{path}: is no pipeline folder: it has no {INDEX}")
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise ModelFileError(
            f"{path / INDEX}: names no pipeline class of diffusers; program code in a model is not run"
        )
    values: dict[str, int] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    variants: set[str | None] = set()
    libraries: set[str] = set()
    for part, of in index.items():
        if part.startswith("_") or not isinstance(of, list) or len(of) != 2 or of[0] is None:
            continue
        folder = path / part
        libraries.add(str(of[0]))
        if any(folder.glob(f"{of[0]}.py")) or (path / f"{of[0]}.py").exists():
            raise ModelFileError(f"{folder}: brings program code of its own, which is not run")
        if not folder.is_dir():
            raise ModelFileError(f"{path}: its part {part!r} is missing")
        if (folder / "config.json").is_file():
            configs[part] = _json(folder / "config.json", "")
        files, variant = _weight_files(folder, allow_pickle)
        if files:
            values[part] = sum(map(_count, files))
            variants.add(variant)
    if not values:
        raise ModelFileError(f"{path}: has no weights")
    # diffusers takes the plain files of parts that lack the variant.
    return Weights(path, class_name, values, configs, "fp16" if "fp16" in variants else None, frozenset(libraries))


def _weight_files(folder: Path, allow_pickle: bool) -> tuple[list[Path], str | None]:
    """The files that would be loaded, and their variant."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() == WEIGHTS)
    plain = [p for p in found if ".fp16" not in p.name]
    if found:
        return (plain, None) if plain else (found, "fp16")
    pickled = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLES)
    for path in pickled[:1]:
        check_pickle(path, allow_pickle)
    return pickled, None


def _count(path: Path) -> int:
    """Number of weights in a file; of a pickled one, guessed from its size.

    Raises:
        ModelFileError: it is cut short, or no safetensors file.
    """
    size = path.stat().st_size
    if path.suffix.lower() != WEIGHTS:
        return size // 2
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ModelFileError(f"{path}: is no safetensors file, or only a piece of one")
        try:
            header = json.loads(file.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
            values = sum(prod(map(int, entry["shape"])) for entry in tensors)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
            raise ModelFileError(f"{path}: is no safetensors file") from exc
    if 8 + length + end > size:
        raise ModelFileError(f"{path}: is cut short: {size} of {8 + length + end} bytes are there")
    return values


def _json(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelFileError(f"{path}: is too large to be what its name says")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelFileError(if_missing or f"{path}: is missing") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise ModelFileError(f"{path}: cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: is no JSON object")
    return value


DENOISERS = ("unet", "transformer")


def native_side(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Side length, in pixels, of the pictures a model was made for; 512 where its configuration does not say."""
    size = next((configs[name].get("sample_size") for name in DENOISERS if name in configs), None)
    return size * latent_scale(configs) if isinstance(size, int) and size > 0 else 512


def latent_scale(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Pixels to one place of the latents, along one side."""
    levels = configs.get("vae", {}).get("block_out_channels")
    return int(2 ** (len(levels) - 1)) if isinstance(levels, list) and 1 <= len(levels) <= 8 else 8


def widest_channels(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Channels of the decoder's last level, where a picture has all its pixels."""
    levels = configs.get("vae", {}).get("block_out_channels")
    return levels[0] if isinstance(levels, list) and levels and isinstance(levels[0], int) else 128
