"""`shoal chat`: a streamed conversation in the terminal."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from node.client import NodeClient, best_model
from node.errors import CommandError


def default_model(client: NodeClient) -> str:
    """The model to talk to when none is named: a loaded chat model, else any chat model."""
    if model := best_model(client, "chat"):
        return model
    raise CommandError("no chat model in the mesh", hint="drop a .gguf file into the data folder's models/")


def chat(client: NodeClient, model: str, ask: Callable[[], str | None], console: Console) -> None:
    """Asks and answers until `ask` returns None."""
    messages: list[dict[str, str]] = []
    while (text := ask()) is not None:
        if not text.strip():
            continue
        messages.append({"role": "user", "content": text})
        try:
            reply = answer(client, model, messages, console)
        except CommandError as error:
            messages.pop()
            console.print(str(error), style="red", markup=False)
            continue
        messages.append({"role": "assistant", "content": reply})


def answer(client: NodeClient, model: str, messages: list[dict[str, str]], console: Console) -> str:
    """Streams one answer to the console and returns it whole."""
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
    pieces: list[str] = []
    node = why = ""
    try:
        for headers, event in client.stream("/v1/chat/completions", body):
            node, why = headers.get("x-shoal-node", ""), headers.get("x-shoal-route", "")
            for choice in event.get("choices", ()):
                piece = choice["delta"].get("content") or ""
                pieces.append(piece)
                console.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/]", end="")
    console.print()
    if node:
        console.print(f"{model} on {node}, {why}", style="dim", markup=False)
    return "".join(pieces)
