"""What `make bench` tells when something in it fails. What it measures is measured there, not here."""

import pytest

from bench import engine
from bench.engine import Burst, Server, side_by_side
from bench.figures import medians, slower


async def test_a_peer_that_fails_is_named_and_our_figures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (Server(port, "half", {}, None) for port in (1, 2))  # type: ignore[arg-type]

    async def burst(server: Server, concurrency: int, seed: int) -> Burst:
        if server is theirs:
            raise ConnectionRefusedError("nobody listens")
        return Burst(tokens_per_s=100.0, first_s=0.5, cpu_s=0.01)

    monkeypatch.setattr(engine, "_burst", burst)
    said: list[str] = []
    for ours_first in (True, False):
        figures, answered = await side_by_side(ours, theirs, 4, said.append, ours_first=ours_first)

        assert not answered
        assert figures == {"tokens_per_s": 100.0, "first_token_ms": 500.0, "cpu_ms_per_token": 10.0}

    assert said[0].startswith("llama-server FAILED")
    assert "nobody listens" in said[0]


def test_figures_that_only_some_repeats_have_are_told() -> None:
    assert medians([{"ours": 3.0}, {"ours": 1.0, "theirs": 7.0}, {"ours": 2.0}]) == {"ours": 2.0, "theirs": 7.0}


def test_slower_is_told_in_percent_of_the_direct_call() -> None:
    took = {"direct": [2.0, 9.0, 1.0], "local": [2.0, 2.1, 2.2], "forwarded": [3.0]}

    assert slower(took) == pytest.approx(
        {"direct_s": 2.0, "local_slower_percent": 5.0, "forwarded_slower_percent": 50.0}
    )
