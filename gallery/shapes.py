"""Models that are folders of files, told by what lies in them: which engine runs them, and which files it takes. Pure.

Models that hear or speak are told by `gallery.sound_models`; here are the others:

    model_index.json                        a diffusers pipeline; its parts are folders
    config.json, *.safetensors              a transformers checkpoint, which no engine here runs

Small JSON files are read through a function that is passed in, so this works for repositories and for local folders.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gallery.errors import InstallError
from gallery.sound_models import WHISPER, sound_model
from gallery.unsafe_files import PICKLES, check_name
from gallery.variants import RepositoryFile

INDEX = "model_index.json"
CONFIG = "config.json"
WEIGHTS = ".safetensors"
HALF = ".fp16."
OTHER_PRECISIONS = (".non_ema.", ".bf16.", ".fp32.")
PART_TEXTS = frozenset({".json", ".txt", ".model"})
"""Configurations, vocabularies and the like, of a pipeline's parts."""
MAX_FILES = 2000

ReadJson = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A model that is a folder."""

    engine: str
    files: tuple[RepositoryFile, ...]
    """What the engine takes of it, by their paths in the folder."""
    why: str
    settings: Mapping[str, Any]
    """For its card."""
    is_flat: bool = False
    """Its files lie side by side, and the card names the first; else it is the folder that the card names."""


def shape_of(
    files: Sequence[RepositoryFile], read: ReadJson, what: str, *, wanted: str = "", allow_pickle: bool = False
) -> Shape:
    """The model in a folder of such files; of several voices, the one that is wanted.

    Raises:
        InstallError: there is none that an engine here runs; the message says what is there instead.
    """
    by_path = {file.path: file for file in files}
    if INDEX in by_path:
        return _pipeline(by_path, read(INDEX), what, allow_pickle)
    if (sound := sound_model(files, wanted, what)) is not None:
        return Shape(sound.engine, sound.files, sound.why, {}, is_flat=True)
    if CONFIG in by_path and "model.bin" in by_path:
        raise InstallError(
            f"{what} is a CTranslate2 model, but not a whole one of whisper's ({', '.join(WHISPER)})",
            code="unsupported",
        )
    if any(path.endswith(".onnx") for path in by_path):
        raise InstallError(f"{what} holds ONNX models, but no voice of piper or kokoro", code="unsupported")
    # Why not, in the words that fit: a checkpoint that could run code, or simply another format.
    has_weights = any(path.endswith(WEIGHTS) for path in by_path)
    if not has_weights:
        for path in by_path:
            check_name(path, allow_pickle=allow_pickle)
    if CONFIG in by_path and (has_weights or allow_pickle):
        kinds = read(CONFIG).get("architectures")
        kind = kinds[0] if isinstance(kinds, list) and kinds and isinstance(kinds[0], str) else "model"
        raise InstallError(
            f"{what} is a transformers checkpoint ({kind[:60]}), which no engine here runs; look for a GGUF version"
            " of it, often called the same with -GGUF",
            code="unsupported",
        )
    if has_weights:
        raise InstallError(
            f"{what} has .safetensors files, but neither {INDEX} nor {CONFIG} that says what they are; one file that"
            " diffusers reads is installed by its address",
            code="unsupported",
        )
    raise InstallError(f"{what} has no GGUF file, and nothing else that an engine here runs", code="no_variant")


def _pipeline(files: Mapping[str, RepositoryFile], index: Mapping[str, Any], what: str, allow_pickle: bool) -> Shape:
    parts = [
        name
        for name, of in index.items()
        if not name.startswith("_") and isinstance(of, list) and len(of) == 2 and of[0] is not None
    ]
    chosen = [files[INDEX]]
    is_half = is_pickled = False
    for part in parts:
        own = [file for path, file in sorted(files.items()) if PurePosixPath(path).parent.as_posix() == part]
        if not own:
            raise InstallError(f"{what}: its part {part[:60]!r} is missing", code="no_variant")
        chosen += [file for file in own if PurePosixPath(file.path).suffix in PART_TEXTS]
        weights, half = _weights(own)
        pickled = [file for file in own if PurePosixPath(file.path).suffix in PICKLES]
        if not weights and pickled:
            check_name(pickled[0].path, allow_pickle=allow_pickle)
            weights, is_pickled = pickled, True
        chosen += weights
        is_half |= half
    if not any(PurePosixPath(file.path).suffix in (WEIGHTS, *PICKLES) for file in chosen):
        raise InstallError(f"{what} has no weights", code="no_variant")
    _check_count(chosen, what)
    told = str(index.get("_class_name", ""))[:80]
    why = f"a diffusers pipeline ({told})" + (", in half precision" if is_half else "")
    return Shape("diffusers", tuple(dict.fromkeys(chosen)), why, {"allow_pickle": True} if is_pickled else {})


def _weights(files: Sequence[RepositoryFile]) -> tuple[list[RepositoryFile], bool]:
    """Of one part: half precision where there is such, because it is half to fetch and what GPUs compute in anyway."""
    found = [file for file in files if file.path.endswith(WEIGHTS)]
    half = [file for file in found if HALF in file.path]
    plain = [f for f in found if HALF not in f.path and not any(other in f.path for other in OTHER_PRECISIONS)]
    return (half, True) if half else (plain or found, False)


def _check_count(files: Sequence[RepositoryFile], what: str) -> None:
    if len(files) > MAX_FILES:
        raise InstallError(f"{what} has {len(files)} files; a model may have {MAX_FILES}", code="unsafe")
