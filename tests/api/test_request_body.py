"""When a body that is still coming counts as stalled."""

import pytest

from api.config import ApiConfig
from api.request_body import body_deadline

CONFIG = ApiConfig(body_timeout=10, min_body_rate=100)


@pytest.mark.parametrize(
    ("progress_at", "received", "expected"),
    [
        pytest.param(0, 0, 10, id="nothing came: body_timeout"),
        pytest.param(1, 10_000, 11, id="it came fast, then paused: body_timeout from then"),
        pytest.param(9, 100, 11, id="it drips: the rate decides"),
        pytest.param(50, 100_000, 60, id="a long upload may take long"),
    ],
)
def test_the_deadline_is_a_bound_on_pauses_and_on_slowness(progress_at: float, received: int, expected: float) -> None:
    deadline = body_deadline(started_at=0, progress_at=progress_at, received=received, config=CONFIG)

    assert deadline == expected
