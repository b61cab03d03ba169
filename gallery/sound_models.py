"""Which files of a repository are a model that hears or speaks: whisper in CTranslate2's form, piper, kokoro. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from gallery.errors import InstallError
from gallery.variants import RepositoryFile

WHISPER = ("model.bin", "config.json", "tokenizer.json")
"""Without these it does not run. `model.bin` is CTranslate2's own format, which runs no code."""

WHISPER_MORE = ("preprocessor_config.json", "vocabulary.txt", "vocabulary.json")

KOKORO = ("onnx/model.onnx", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class SoundModel:
    """A model of several files."""

    engine: str
    files: tuple[RepositoryFile, ...]
    """The one with the weights first."""
    why: str


def sound_model(files: Sequence[RepositoryFile], wanted: str, repository: str) -> SoundModel | None:
    """The model among `files`; None if there is none. `wanted`: the name of a voice, where there are many.

    Raises:
        InstallError: there are voices, but not that one, or nobody said which.
    """
    by_path = {file.path: file for file in files}
    if all(name in by_path for name in WHISPER):
        more = [by_path[name] for name in WHISPER_MORE if name in by_path]
        return SoundModel("whisper", (*(by_path[name] for name in WHISPER), *more), "all of its files")
    voices = {
        PurePosixPath(path).stem: path for path in by_path if f"{path}.json" in by_path and path.endswith(".onnx")
    }
    if voices:
        path = voices.get(wanted) or (next(iter(voices.values())) if len(voices) == 1 and not wanted else None)
        if path is None:
            some = sorted(voices)[:3]
            raise InstallError(
                f"{repository} has {len(voices)} voices, {wanted!r} not among them; say which, as in :{some[0]}"
                f" (others are {', '.join(some[1:])})",
                code="not_found",
            )
        return SoundModel("speech", (by_path[path], by_path[f"{path}.json"]), f"voice {PurePosixPath(path).stem}")
    if all(name in by_path for name in KOKORO):
        styles = [
            file for path, file in sorted(by_path.items()) if path.startswith("voices/") and path.endswith(".bin")
        ]
        if styles:
            return SoundModel("speech", (*(by_path[name] for name in KOKORO), *styles), f"{len(styles)} voices")
    return None
