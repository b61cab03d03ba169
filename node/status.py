"""`shoal status`: the mesh as a table. Pure: from the body of `GET /api/mesh` to something rich can print."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

STATE_STYLE = {"alive": "green", "suspect": "yellow", "dead": "red", "left": "dim"}
MODEL_STYLE = {"ready": "green", "loading": "yellow", "draining": "yellow", "on_disk": "dim"}


def human_bytes(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def render(mesh: Mapping[str, Any]) -> RenderableType:
    """Nodes, what they compute with, what they hold and how busy they are."""
    nodes = sorted(mesh["nodes"], key=lambda n: (n["id"] != mesh["self"], n["name"]))
    return Group(_nodes(nodes, mesh["self"]), _models(nodes))


def _nodes(nodes: list[Mapping[str, Any]], self_id: str) -> Table:
    table = Table(title="Nodes", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("node", "state", "accelerators", "API", "id"):
        table.add_column(heading, overflow="fold")
    for node in nodes:
        table.add_row(
            node["name"] + (" (this node)" if node["id"] == self_id else ""),
            Text(node["state"], STATE_STYLE.get(node["state"], "")),
            "\n".join(map(_device, node["devices"])) or "-",
            node["api_url"],
            node["id"][-8:],
        )
    return table


def _device(device: Mapping[str, Any]) -> str:
    free, total = human_bytes(device["memory_free"]), human_bytes(device["memory_total"])
    return f"{device['kind']} {device['name']}, {free} of {total} free"


def _models(nodes: list[Mapping[str, Any]]) -> Table:
    table = Table(title="\nModels", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "node", "state", "busy", "queued", "context", "engine", "digest"):
        table.add_column(heading)
    rows = [(model, node) for node in nodes if node["state"] in ("alive", "suspect") for model in node["models"]]
    rows.sort(key=lambda row: (row[0]["name"], row[0]["state"] == "on_disk", row[1]["name"]))
    for model, node in rows:
        held = model["state"] != "on_disk"
        table.add_row(
            model["name"],
            node["name"],
            Text(model["state"].replace("_", " "), MODEL_STYLE.get(model["state"], "")),
            f"{model['busy']}/{model['slots']}" if held else "",
            str(model["queued"]) if held else "",
            str(model["context_length"] or "") if held else "",
            model["engine"],
            model["digest"][:8],
        )
    if not rows:
        table.add_row("none", "", "", "", "", "", "", "")
    return table
