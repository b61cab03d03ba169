"""Models that other programs keep, used where they lie: nothing is copied, moved or written there.

Ollama      manifests/registry.ollama.ai/library/NAME/TAG  names a blob, blobs/sha256-…      -> NAME:TAG
LM Studio   PUBLISHER/REPOSITORY/FILE.gguf                                                   -> FILE
any folder  FILE.gguf, also in folders within                                                -> FILE
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gallery.weights import model_name

MAX_DEPTH = 4
MAX_FILES = 5_000
"""Looked at in one folder: somebody may name their home by mistake."""
MAX_MANIFEST_BYTES = 1024 * 1024

OLLAMA_HOST = "registry.ollama.ai"
_WEIGHTS = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")


def models_in(store: Path) -> dict[str, Path]:
    """First file of each model in `store`, by name. What cannot be read is passed over.

    Where two files have a name, the first in order has it, and the other is called FOLDER/NAME.
    """
    if (store / "manifests").is_dir() and (store / "blobs").is_dir():
        return dict(_of_ollama(store))
    found: dict[str, Path] = {}
    for path in _files(store):
        name = model_name(path.name)
        if name is not None:
            found.setdefault(name if name not in found else f"{path.parent.name}/{name}", path)
    return found


def _of_ollama(store: Path) -> Iterator[tuple[str, Path]]:
    manifests = store / "manifests"
    for path in _files(manifests):
        parts = path.relative_to(manifests).parts
        if len(parts) < 3:
            continue
        weights = _weights(path)
        if weights is None:
            continue
        host, *names, tag = parts
        name = "/".join(names if host == OLLAMA_HOST else [host, *names]).removeprefix("library/")
        yield f"{name}:{tag}", store / "blobs" / f"sha256-{weights}"


def _weights(manifest: Path) -> str | None:
    """The digest of a model's weights in hex."""
    try:
        with manifest.open("rb") as file:
            layers: Any = json.loads(file.read(MAX_MANIFEST_BYTES))["layers"]
        digests = [_DIGEST.match(layer["digest"]) for layer in layers if layer["mediaType"] == _WEIGHTS]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digests[0][1] if digests and digests[0] else None


def _files(folder: Path) -> Iterator[Path]:
    """Files in a folder and those within it, in order, none that is hidden."""
    seen = 0
    for where, folders, names in os.walk(folder):
        depth = len(Path(where).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < MAX_DEPTH else []
        for name in sorted(names):
            seen += 1
            if seen > MAX_FILES:
                return
            if not name.startswith("."):
                yield Path(where) / name
