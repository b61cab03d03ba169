"""A small client for registries that keep models as OCI artifacts; Ollama's is one.

    manifest (by tag)  ->  layers: digest, size, media type  ->  blobs (by digest)

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; tokens:
https://distribution.github.io/distribution/spec/auth/token/
"""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from gallery.errors import InstallError, SourceError
from gallery.source import RegistrySource, file_name
from gallery.transfer import RemoteFile
from gallery.web import Web, check_status

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.oci.image.index.v1+json"
)
MAX_MANIFEST = 4 * 1024 * 1024
MAX_TEXT_LAYER = 1024 * 1024

_OLLAMA = "application/vnd.ollama.image."
_TITLE = "org.opencontainers.image.title"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model in a registry: its weights, and what Ollama's keeps beside them."""

    digest: str
    weights: tuple[RemoteFile, ...]
    parameters: Mapping[str, Any]
    """Ollama's sampling parameters."""
    licence: str


def look_up(source: RegistrySource, web: Web) -> Artifact:
    """What is behind a tag.

    Raises:
        InstallError: it is not there, needs a token, or holds no GGUF file.
    """
    base = f"{'http' if _is_loopback(source.host) else 'https'}://{source.host}/v2/{source.repository}"
    what = f"{source.repository}:{source.tag}"
    headers: dict[str, str] = {}
    manifest, headers = _manifest(web, base, source.tag, headers, what)
    if isinstance(manifest.get("manifests"), list) and manifest["manifests"]:
        manifest, headers = _manifest(web, base, _digest(manifest["manifests"][0]), headers, what)
    layers = [layer for layer in manifest.get("layers", ()) if isinstance(layer, dict)]
    weights = list(_weights(layers, base, headers, source))
    if not weights:
        raise InstallError(f"{what} holds no GGUF file", code="no_variant")
    texts = {str(layer.get("mediaType")): layer for layer in layers}
    parameters = _text(web, base, headers, texts.get(_OLLAMA + "params"))
    licence = _text(web, base, headers, texts.get(_OLLAMA + "license")).strip().splitlines()
    try:
        found = json.loads(parameters or "{}")
    except (ValueError, RecursionError):
        found = {}
    return Artifact(
        digest=str(manifest.get("config", {}).get("digest", "")),
        weights=tuple(weights),
        parameters=found if isinstance(found, dict) else {},
        licence=licence[0].strip()[:200] if licence else "",
    )


def _manifest(
    web: Web, base: str, reference: str, headers: Mapping[str, str], what: str
) -> tuple[dict[str, Any], dict[str, str]]:
    url = f"{base}/manifests/{reference}"
    headers = {"Accept": MANIFESTS, **headers}
    with web.get(url, headers) as answer:
        challenge = answer.headers.get("WWW-Authenticate", "") if answer.status == 401 else ""
        if not challenge.lower().startswith("bearer "):
            check_status(answer, what)
            return _parsed(answer.text(MAX_MANIFEST), what), dict(headers)
    headers |= {"Authorization": f"Bearer {_token(web, challenge, what)}"}
    with web.get(url, headers) as answer:
        check_status(answer, what)
        return _parsed(answer.text(MAX_MANIFEST), what), dict(headers)


def _token(web: Web, challenge: str, what: str) -> str:
    """A token for reading, from where the challenge says; `~/.netrc` may say who we are there."""
    fields = dict(_CHALLENGE.findall(challenge))
    query = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    with web.get(f"{fields.get('realm', '')}?{query}") as answer:
        check_status(answer, what)
        found = _parsed(answer.text(MAX_MANIFEST), what)
    return str(found.get("token") or found.get("access_token") or "")


def _weights(
    layers: list[dict[str, Any]], base: str, headers: Mapping[str, str], source: RegistrySource
) -> Iterator[RemoteFile]:
    for number, layer in enumerate(layers):
        kind = str(layer.get("mediaType", ""))
        notes = layer.get("annotations")
        title = str(notes.get(_TITLE, "")) if isinstance(notes, dict) else ""
        is_gguf = kind == _OLLAMA + "model" or "gguf" in kind.lower() or title.lower().endswith(".gguf")
        if not is_gguf or "mmproj" in (kind + title).lower():
            continue
        digest, size = _digest(layer), layer.get("size")
        try:
            name = file_name(title)
        except SourceError:
            name = f"{source.repository.split('/')[-1]}-{number}.gguf"
        yield RemoteFile(
            url=f"{base}/blobs/{digest}",
            name=name if name.lower().endswith(".gguf") else f"{name}.gguf",
            size=size if isinstance(size, int) and not isinstance(size, bool) else None,
            sha256=digest.removeprefix("sha256:"),
            headers=tuple((k, v) for k, v in headers.items() if k != "Accept"),
        )


def _text(web: Web, base: str, headers: Mapping[str, str], layer: dict[str, Any] | None) -> str:
    if layer is None:
        return ""
    with web.get(f"{base}/blobs/{_digest(layer)}", headers) as answer:
        check_status(answer, "a layer")
        return answer.text(MAX_TEXT_LAYER).decode("utf-8", errors="replace")


def _digest(layer: Mapping[str, Any]) -> str:
    digest = str(layer.get("digest", ""))
    if not _DIGEST.match(digest):
        raise InstallError(f"the registry names a layer by {digest[:80]!r}, which is no sha256", code="unsafe")
    return digest


def _parsed(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InstallError(f"{what}: the registry sent no manifest", code="unsupported")
    return found


def _is_loopback(host: str) -> bool:
    # As docker does: a registry on this very machine has no certificate.
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
