"""A short chaos run (see `tests.chaos`): whatever goes wrong, every answer comes, and it is the right one."""

from pathlib import Path

import pytest

from tests.chaos.run import Settings, chaos
from tests.helpers.lan import why_not

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


async def test_half_a_minute_of_chaos_costs_no_answer(tmp_path: Path) -> None:
    said: list[str] = []
    settings = Settings(seed=34, seconds=30, nodes=3, has_network=not why_not())

    verdict = await chaos(tmp_path, settings, said.append)

    # Not judged by time: that is for `make chaos`.
    assert verdict.failures(longest_gap=None) == [], "\n".join(said)
    assert verdict.answers.total() > 20
