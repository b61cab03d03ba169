"""What another node wrote of an answer is made sense of, or is none: it never breaks the request for it."""

from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from api.generation import said_again
from api.ports import TakenOver
from api.text_routes import CHAT, COMPLETION


class Silence:
    """The rest of an answer: nothing."""

    def batches(self) -> "Silence":
        return self


ANYTHING: Any = Silence()
WELL = {"prefix": "cmpl-", "id": "cmpl-1", "created": 1, "model": "m", "choices": 1, "include_usage": True}

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.just([])
)


@given(st.dictionaries(st.sampled_from(sorted(WELL)), odd))
@example({"choices": -1e308})
@example({"created": 1e308})
def test_whatever_a_peer_wrote_it_is_an_answer_or_none(changed: dict[str, Any]) -> None:
    taken = TakenOver(orjson.dumps(WELL | changed).decode(), (), ANYTHING)

    found = said_again(taken, (CHAT, COMPLETION), ANYTHING)

    assert found is None or isinstance(found[0], bytes)


def test_what_makes_sense_is_an_answer() -> None:
    assert said_again(TakenOver(orjson.dumps(WELL).decode(), (), ANYTHING), (CHAT, COMPLETION), ANYTHING) is not None
