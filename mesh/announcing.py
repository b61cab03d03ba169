"""Making a node's own record fit the limits that its readers enforce.

A record that breaks a limit would be refused by every peer, and the node would vanish. So what is
too long is shortened and what is too much is left out, the least important first.
"""

import math
from dataclasses import replace

from mesh.codec import (
    MAX_ADDRESSES,
    MAX_CAPABILITIES,
    MAX_DEVICES,
    MAX_MODELS,
    MAX_NUMBER,
    MAX_TEXT,
)
from mesh.types import Device, ModelRecord, ModelState, NodeRecord

MOST_MODELS = 200
"""Models on disk beyond this are not told; whoever is asked for one finds it all the same."""

_IMPORTANCE = (ModelState.READY, ModelState.LOADING, ModelState.DRAINING, ModelState.ON_DISK)


def fit(record: NodeRecord) -> NodeRecord:
    """The same record within the limits of `mesh.codec`."""
    models = sorted(record.models, key=lambda m: _IMPORTANCE.index(m.state))
    return replace(
        record,
        name=_text(record.name),
        addresses=tuple(_text(a) for a in record.addresses[:MAX_ADDRESSES]),
        api_url=_text(record.api_url),
        software=_text(record.software),
        devices=tuple(_device(d) for d in record.devices[:MAX_DEVICES]),
        models=tuple(_model(m) for m in models[: min(MOST_MODELS, MAX_MODELS)]),
    )


def _device(device: Device) -> Device:
    return Device(
        _text(device.kind),
        _text(device.name),
        _count(device.memory_total),
        _count(device.memory_free),
    )


def _model(model: ModelRecord) -> ModelRecord:
    return replace(
        model,
        name=_text(model.name),
        digest=_text(model.digest),
        engine=_text(model.engine),
        slots=_count(model.slots),
        busy=_count(model.busy),
        queued=_count(model.queued),
        context_length=_count(model.context_length),
        capabilities=tuple(_text(c) for c in model.capabilities[:MAX_CAPABILITIES]),
        devices=tuple(_text(d) for d in model.devices[:MAX_DEVICES]),
        created=_count(model.created),
        tokens_per_second=_measure(model.tokens_per_second),
        first_token_seconds=_measure(model.first_token_seconds),
    )


def _text(text: str) -> str:
    printable = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return printable[:MAX_TEXT]


def _count(number: int) -> int:
    return min(max(int(number), 0), MAX_NUMBER)


def _measure(number: float) -> float:
    return min(max(float(number), 0.0), float(MAX_NUMBER)) if math.isfinite(number) else 0.0
