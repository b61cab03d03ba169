"""What people write to say where a model comes from, understood. Pure.

qwen3-4b                       an entry of a gallery, also qwen3-4b:Q8_0
hf://ORG/REPO[:QUANT][@REV]    a repository of the Hugging Face hub
ollama://NAME[:TAG]            Ollama's registry; ollama://USER/NAME too
oci://HOST/NAME[:TAG]          any registry that keeps models as OCI artifacts
https://HOST/PATH/x.gguf       one file
file:///PATH/x.gguf            a file of the node's own machine, read in place
engine://NAME                  no model: the packages of an engine
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from gallery.errors import SourceError

MAX_SOURCE = 2048
MAX_NAME = 100
MAX_DEPTH = 4

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_RESERVED_SUFFIXES = (".gguf", ".yaml", ".yml", ".part", ".json")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True)
class EntrySource:
    """An entry of a gallery."""

    name: str
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face hub, perhaps one file of it."""

    repository: str
    quantization: str = ""
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """A model in a registry that speaks OCI's protocol; Ollama's does too."""

    host: str
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class UrlSource:
    """One file on the web."""

    url: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of this machine."""

    path: str


@dataclass(frozen=True, slots=True)
class EngineSource:
    """The packages of an engine."""

    name: str


Source = EntrySource | HubSource | RegistrySource | UrlSource | FileSource | EngineSource

OLLAMA = "registry.ollama.ai"


def parse_source(text: str) -> Source:
    """What `text` means.

    Raises:
        SourceError: nothing, with an example of what would.
    """
    text = text.strip()
    if not text or len(text) > MAX_SOURCE or not text.isprintable():
        raise SourceError("say which model: a name of the gallery, hf://ORG/REPO, ollama://NAME, or a web address")
    scheme, is_url, rest = text.partition("://")
    if not is_url:
        name, _, quantization = text.partition(":")
        if not _NAME.match(name):
            raise SourceError(f"{text[:100]!r} is no model's name; a repository is written hf://ORG/REPO")
        return EntrySource(name, quantization)
    match scheme.lower():
        case "hf" | "huggingface":
            return _hub(rest)
        case "ollama":
            return _ollama(rest)
        case "oci":
            return _oci(rest)
        case "http" | "https":
            # Refused before it is written down or logged anywhere, and not repeated.
            if "@" in rest.partition("/")[0]:
                raise SourceError(f"{scheme}://: a name or password in an address is not taken; put it into ~/.netrc")
            return UrlSource(text)
        case "file":
            path = unquote(urlsplit(text).path)
            if urlsplit(text).netloc not in ("", "localhost") or not path.startswith("/"):
                raise SourceError(f"{text[:100]!r}: a file is written with its whole path, file:///home/me/x.gguf")
            return FileSource(path)
        case "engine":
            if not _NAME.match(rest):
                raise SourceError(f"engine://{rest[:100]}: an engine is written engine://NAME")
            return EngineSource(rest)
        case _:
            raise SourceError(f"{scheme[:20]}:// is unknown; there are hf, ollama, oci, https, http and file")


def _hub(rest: str) -> HubSource:
    rest, _, revision = rest.partition("@")
    path, _, quantization = rest.partition(":")
    parts = path.strip("/").split("/")
    if len(parts) != 2 or not all(map(_PART.match, parts)):
        raise SourceError(f"hf://{rest[:100]}: a repository is written hf://ORG/REPO, or hf://ORG/REPO:QUANT")
    return HubSource("/".join(parts), quantization, revision or "main")


def _ollama(rest: str) -> RegistrySource:
    path, tag = _tagged(rest)
    parts = path.strip("/").split("/")
    host = OLLAMA
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0]):
        host, parts = parts[0], parts[1:]
    if not 1 <= len(parts) <= 3 or not all(map(_PART.match, parts)):
        raise SourceError(f"ollama://{rest[:100]}: a model is written ollama://NAME or ollama://NAME:TAG")
    return RegistrySource(host, "/".join(parts if len(parts) > 1 else ["library", *parts]), tag)


def _oci(rest: str) -> RegistrySource:
    path, tag = _tagged(rest)
    host, _, repository = path.partition("/")
    parts = repository.split("/")
    if not repository or not all(map(_PART.match, parts)):
        raise SourceError(f"oci://{rest[:100]}: a model is written oci://HOST/NAME:TAG")
    return RegistrySource(host, repository, tag)


def _tagged(rest: str) -> tuple[str, str]:
    """Path and tag; a colon before the last slash belongs to a port."""
    before, slash, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    if tag and not _PART.match(tag):
        raise SourceError(f"{tag[:60]!r} is no tag")
    return before + slash + name, tag or "latest"


def without_query(text: str) -> str:
    """A source as it may be shown and kept: what comes after an address's question mark may be a key."""
    address, mark, _ = text.partition("?")
    return f"{address}?..." if mark else address


def name_problem(name: str) -> str | None:
    """Why an installed model cannot be called that; None if it can. Names become files."""
    if not _NAME.match(name) or len(name) > MAX_NAME:
        return f"{name[:MAX_NAME]!r} cannot be a model's name: letters, digits and . _ + - only, up to {MAX_NAME}"
    if name.lower().endswith(_RESERVED_SUFFIXES):
        return f"{name!r} cannot be a model's name: it looks like a file's"
    return None


def suggested_name(source: Source) -> str:
    """What a model from there is called unless somebody says otherwise."""
    match source:
        case EntrySource(name) | EngineSource(name):
            base = name
        case HubSource(repository, quantization):
            base = re.sub(r"[-_.]gguf\Z", "", repository.split("/")[1], flags=re.IGNORECASE)
            base = f"{base}-{quantization}" if quantization else base
        case RegistrySource(_, repository, tag):
            base = repository.split("/")[-1] + ("" if tag == "latest" else f"-{tag}")
        case UrlSource(url):
            base = PurePosixPath(unquote(urlsplit(url).path)).name
        case FileSource(path):
            base = PurePosixPath(path).name
    base = re.sub(r"(\.zip|\.tar|\.tar\.gz|\.tgz)\Z", "", base, flags=re.IGNORECASE)
    base = re.sub(r"(-\d{5}-of-\d{5})?\.gguf\Z", "", base, flags=re.IGNORECASE)
    name = _UNSAFE.sub("-", base).strip("-._+").lower()[:MAX_NAME]
    return name if name and name_problem(name) is None else "model"


def inner_folder(path: str) -> str:
    """The folders of a foreign path, as they may be made here; "" for none.

    Raises:
        SourceError: one of them is no plain name, or there are too many.
    """
    parts = PurePosixPath(path).parts[:-1]
    if len(parts) > MAX_DEPTH or not all(_NAME.match(part) and len(part) <= MAX_NAME for part in parts):
        raise SourceError(f"{path[:100]!r} cannot be a file's path here")
    return "/".join(parts)


def file_name(path: str) -> str:
    """The last part of a foreign path, as a name that is safe here.

    Raises:
        SourceError: nothing usable is left.
    """
    name = PurePosixPath(unquote(path)).name
    if not _NAME.match(name) or len(name) > 200 or name.lower().endswith((".part", ".part.json")):
        raise SourceError(f"{name[:100]!r} cannot be a file's name here")
    return name
