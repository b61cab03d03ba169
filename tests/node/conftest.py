"""Tests of the node run on the event loop that a node runs on."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """For every test in this folder."""
    return {"uvloop": uvloop.new_event_loop}
