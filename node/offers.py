"""What this node gives to others: files of weights by their digest, and descriptions of the models made of them.

Models marked `private` and those that ship with Shoal are not among them. Reads the catalog and the known digests;
nothing is hashed for it.
"""

from collections.abc import Iterator
from pathlib import Path

from gallery.card import ModelCard
from gallery.catalog import Catalog
from gallery.digest import SPEED_SETTINGS, DigestCache
from gallery.installed import model_folder, read_lock
from gallery.offer import ADAPTER, PROJECTOR, WEIGHTS, Offer, OfferedFile
from gallery.shared_files import SharedFile
from gallery.source import EntrySource, name_problem, suggested_name
from gallery.weights import SUFFIX, part_paths

ENGINE = "llama"
"""The engine whose models are files, and can be installed from a peer."""


class Offers:
    """Stats files, so it belongs into a thread."""

    def __init__(self, catalog: Catalog, digests: DigestCache, models: Path, logs: Path) -> None:
        self._catalog = catalog
        self._digests = digests
        self._models = models
        self._logs = logs

    def files(self) -> dict[str, SharedFile]:
        """Every file that may be given away, by sha256."""
        found: dict[str, SharedFile] = {}
        for card in self._catalog.cards():
            for path, _, _ in _files_of(card):
                try:
                    sha256, stat = self._digests.file_sha256(path), path.stat()
                except OSError:
                    continue
                if sha256 is not None:
                    log = str(self._logs / sha256)
                    found[sha256] = SharedFile(str(path), stat.st_size, log, is_whole=True, mtime_ns=stat.st_mtime_ns)
        return found

    def offer(self, name: str, digest: str) -> Offer | None:
        """The model of that name, if it is given away and all of its files are known. `digest` is the model's."""
        card = self._catalog.lookup(name)
        if card is None:
            return None
        files: list[OfferedFile] = []
        for path, kind, scale in _files_of(card):
            try:
                sha256, size = self._digests.file_sha256(path), path.stat().st_size
            except OSError:
                return None
            if sha256 is None:
                return None
            files.append(OfferedFile(_name_of(path, card.name), size, sha256, kind, scale))
        if not files:
            return None
        lock = read_lock(model_folder(self._models, card.name)) if name_problem(card.name) is None else None
        own = SPEED_SETTINGS[ENGINE]
        return Offer(
            name=card.name,
            engine=card.engine,
            digest=digest,
            files=files,
            settings={key: value for key, value in card.settings.items() if key not in own},
            description=card.description,
            aliases=card.aliases,
            licence=lock.licence if lock else "",
            quantization=lock.quantization if lock else "",
            resolved=lock.resolved if lock and not lock.resolved.startswith("file:") else "",
        )


def _files_of(card: ModelCard) -> Iterator[tuple[Path, str, float]]:
    """Each file of a model, what it is for, and how strongly it counts."""
    if card.private or card.source == "built-in" or card.engine != ENGINE or card.path is None:
        return
    for path in part_paths(card.path):
        yield path, WEIGHTS, 1.0
    if card.projector is not None:
        yield card.projector, PROJECTOR, 1.0
    for adapter in card.adapters:
        yield adapter.path, ADAPTER, adapter.scale


def _name_of(path: Path, model: str) -> str:
    """What the file is called elsewhere: stores of other programs name theirs by digest."""
    if path.name.lower().endswith(SUFFIX) and name_problem(path.name[: -len(SUFFIX)]) is None:
        return path.name
    return f"{suggested_name(EntrySource(model))}{SUFFIX}"
