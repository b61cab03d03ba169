"""Logprobs as OpenAI defines them: of the model's own distribution, before any sampling."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.rpc import backend_pb2 as pb


def token_logprob(
    logits: npt.NDArray[np.float32], token: int, top: int, piece: Callable[[int], bytes]
) -> pb.TokenLogprob:
    """The logprob of `token`, with the `top` likeliest alternatives."""
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    likeliest: list[int] = []
    if top:
        best = np.argpartition(values, -top)[-top:] if top < len(values) else np.arange(len(values))
        likeliest = [int(i) for i in best[np.argsort(-values[best], kind="stable")]]
    return pb.TokenLogprob(
        **_named(token, piece),
        logprob=values[token],
        top=[pb.TokenLogprob(**_named(other, piece), logprob=values[other]) for other in likeliest],
    )


def _named(token: int, piece: Callable[[int], bytes]) -> dict[str, Any]:
    raw = piece(token)
    return {"token": raw.decode(errors="replace"), "token_bytes": raw}
