"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and `/v1/rerank`."""

from dataclasses import replace
from typing import Any

import orjson
from quart import Quart, Response

from api.chat_answer import ChatChunks, ChatCollector
from api.chat_request import read_chat
from api.completion_answer import CompletionChunks, CompletionCollector
from api.completion_request import read_completion
from api.current import current_request
from api.embedding_request import embedding_body, read_embedding
from api.exchange import Surroundings
from api.fetching import Fetcher
from api.fields import parse_object
from api.generation import Dialect, respond, said_again
from api.media import settled
from api.ports import Body, Inference, Route
from api.rerank_request import read_rerank, rerank_body

CHAT = Dialect("chatcmpl-", ChatChunks, ChatCollector)
COMPLETION = Dialect("cmpl-", CompletionChunks, CompletionCollector)


def add_text_routes(app: Quart, inference: Inference, around: Surroundings) -> None:
    def revive(stream_id: str) -> tuple[bytes, Body] | None:
        taken = inference.take_over(stream_id)
        return None if taken is None else said_again(taken, (CHAT, COMPLETION), around.metrics)

    around.streams.revive = revive
    fetcher = Fetcher(allow_private=around.config.fetch_private)

    @app.post("/v1/chat/completions")
    async def chat_completions() -> Response:
        request = current_request()
        wanted = read_chat(parse_object(request.content), request_id=request.request_id, caller=request.caller)
        if wanted.media.remote:
            fetched = await fetcher.fetch(wanted.media.remote)
            wanted = replace(wanted, calls=(settled(wanted.calls[0], wanted.media, fetched),))
        return await respond(request, wanted, CHAT, inference, around)

    @app.post("/v1/completions")
    async def completions() -> Response:
        request = current_request()
        wanted = read_completion(
            parse_object(request.content),
            request_id=request.request_id,
            caller=request.caller,
            max_prompts=around.config.max_prompts,
        )
        return await respond(request, wanted, COMPLETION, inference, around)

    @app.post("/v1/embeddings")
    async def embeddings() -> Response:
        request = current_request()
        wanted = read_embedding(parse_object(request.content), request_id=request.request_id, caller=request.caller)
        result = await inference.embed(wanted.call)
        return _json(embedding_body(wanted, result), result.route)

    @app.post("/v1/rerank")
    async def rerank() -> Response:
        request = current_request()
        wanted = read_rerank(parse_object(request.content), request_id=request.request_id, caller=request.caller)
        result = await inference.rerank(wanted.call)
        return _json(rerank_body(wanted, result), result.route)


def _json(body: dict[str, Any], route: Route) -> Response:
    headers = {"x-shoal-node": route.node, "x-shoal-route": route.why}
    return Response(orjson.dumps(body), headers=headers, content_type="application/json")
