"""The generator of conversations: repeatable, right, and shaped like real requests."""

import json
import random

import pytest

from gallery.minnow.conversation import conversation, short_conversation
from gallery.minnow.lessons.calling import calling
from gallery.minnow.lessons.counting import numbers
from gallery.minnow.lessons.remembering import asking, telling
from gallery.minnow.lessons.scene import Scene
from gallery.minnow.lessons.sums import LARGEST, summands
from gallery.minnow.lessons.toolbox import offers
from gallery.minnow.template import render


def test_the_same_seed_gives_the_same_conversations() -> None:
    one, two = random.Random(3), random.Random(3)
    for room in (128, 512, 2048):
        assert conversation(one, room) == conversation(two, room)
        assert short_conversation(one) == short_conversation(two)


@pytest.mark.parametrize("room", [128, 256, 1024])
def test_conversations_fill_their_room_and_end_with_an_answer(room: int) -> None:
    rng = random.Random(5)
    for _ in range(20):
        made = conversation(rng, room)
        assert made.messages[-1]["role"] == "assistant"
        assert len(render(made.messages, made.tools)) > room * 2


def test_sums_stay_within_what_is_promised() -> None:
    rng = random.Random(1)
    made = {summands(rng) for _ in range(20_000)}
    assert made == {(a, b) for a in range(21) for b in range(21) if a + b <= LARGEST}


def test_the_latest_fact_counts() -> None:
    scene = Scene(random.Random(0), room=500)
    for _ in range(200):
        telling(scene)
        reply = asking(scene)[-1]["content"]
        told = scene.facts.values()
        assert reply.startswith("You have not told me") or any(value in reply for value in told)


def test_calls_fit_the_schema_they_were_offered_with() -> None:
    rng = random.Random(2)
    for _ in range(300):
        scene = Scene(rng, room=500, offers=offers(rng, 3))
        schemas = {o.name: o.schema["function"]["parameters"] for o in scene.offers}
        (request,) = [m for m in calling(scene) if m.get("tool_calls")]
        for call in request["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            known = schemas[call["function"]["name"]]
            assert set(known.get("required", ())) <= set(arguments) <= set(known["properties"])


def test_what_a_call_needs_to_know_is_in_the_question() -> None:
    rng = random.Random(4)
    for _ in range(300):
        (offer, *_) = offers(rng, 1)
        question, arguments = offer.ask(rng)
        assert all(str(value).lower() in question.lower() for value in arguments.values())


def test_counting_is_plain() -> None:
    assert numbers(1, 5) == "1, 2, 3, 4, 5"
