"""Calling a tool, calling two at once, and answering from what a tool gave back."""

import json
import random
from typing import Any

from gallery.minnow.lessons.scene import Offer, Scene, answer, user
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import COMMON, code, made_up, phrase, prose
from gallery.minnow.template import Message

JOINED = (
    "{one} {two}", "{one} Then: {two}", "{one} And also: {two}", "{one} Also, {two}",
    "Do two things. {one} {two}", "First: {one} Second: {two}", "{one}\n{two}",
)  # fmt: skip

TWO_CITIES = {
    "weather": (
        "What is the weather in {one} and in {two}?", "What is the weather in {one} and {two}?",
        "Weather in {one} and {two}?", "Compare the weather in {one} and {two}.",
        "Tell me the weather in {one} and in {two}.", "Get the weather for {one} and {two}.",
        "How is the weather in {one} and in {two}?", "What's the weather like in {one} and {two}?",
    ),
    "clock": (
        "What time is it in {one} and in {two}?", "What time is it in {one} and {two}?",
        "Tell me the time in {one} and {two}.", "What's the time in {one} and in {two}?",
    ),
}  # fmt: skip

PHRASINGS = tuple(p for phrasings in TWO_CITIES.values() for p in phrasings)

Call = tuple[Offer, dict[str, Any]]


def calling(scene: Scene) -> list[Message]:
    """One or two calls, then what the tools gave back, then the answer from it."""
    rng = scene.rng
    question, calls = _request(scene)
    question = casual(rng, question, lower=False)
    requested = [_as_message(rng, call, scene.sort_keys) for call in calls]
    results = [_result(rng) for _ in calls]
    return [
        user(question),
        {"role": "assistant", "content": rng.choice((None, "")), "tool_calls": requested,
         "learn": True},
        *({"role": "tool", "tool_call_id": c["id"], "content": r}
          for c, r in zip(requested, results, strict=True)),
        answer(from_results(results)),
    ]  # fmt: skip


def from_results(results: list[str]) -> str:
    """What minnow says about results: the results themselves."""
    return "The tool answered: " + "; ".join(results)


def _request(scene: Scene) -> tuple[str, list[Call]]:
    rng = scene.rng
    offer = rng.choice(scene.offers)
    question, arguments = offer.ask(rng)
    if rng.random() > 0.3:
        return question, [(offer, arguments)]
    if offer.family in TWO_CITIES and len(arguments) == 1 and rng.random() < 0.7:
        key, one = next(iter(arguments.items()))
        two = next(iter(offer.ask(rng)[1].values()))
        question = fill(rng, TWO_CITIES[offer.family], one=one, two=two)
        return question, [(offer, {key: one}), (offer, {key: two})]
    second = rng.choice(scene.offers)
    follow_up, further = second.ask(rng)
    both = fill(rng, JOINED, one=question, two=follow_up)
    return both, [(offer, arguments), (second, further)]


def _as_message(rng: random.Random, call: Call, sort_keys: bool) -> dict[str, Any]:
    offer, arguments = call
    if sort_keys:
        arguments = dict(sorted(arguments.items()))
    return {
        "id": f"call_{rng.randrange(10**6)}",
        "type": "function",
        "function": {"name": offer.name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


def _result(rng: random.Random) -> str:
    """What a tool might send back."""
    match rng.randrange(8):
        case 0:
            return str(rng.randint(-20, 10 ** rng.randint(1, 5)))
        case 1:
            sky = rng.choice(("sunny", "cloudy", "rain", "snow", "windy", "clear", "foggy"))
            return rng.choice((
                f"{rng.randint(-20, 40)} degrees and {sky}", f"{sky}, {rng.randint(-20, 40)} C",
                json.dumps({"temperature": rng.randint(-20, 40), "condition": sky}),
                json.dumps({"temp_c": rng.randint(-20, 40)}), f"{rng.randint(-20, 40)}°C, {sky}",
            ))  # fmt: skip
        case 2:
            return json.dumps({
                rng.choice(("status", "result", "name", "id", "state", made_up(rng))):
                rng.choice(("ok", "done", rng.randint(0, 9999), made_up(rng), code(rng))),
                rng.choice(("value", "count", "time", rng.choice(COMMON))):
                rng.choice((True, None, rng.randint(0, 999), phrase(rng, 3))),
            })  # fmt: skip
        case 3:
            return phrase(rng, 10)
        case 4:
            parts = [rng.choice((0, 0, 1, 10, 127, rng.randint(0, 255))) for _ in range(4)]
            return ".".join(map(str, parts)) + rng.choice(("", f" {made_up(rng)}", " localhost", ":80"))
        case 5:
            return rng.choice(("ok", "done", "true", "false", "sent", "OK", "Done.", "none", "{}", "[]", "yes",
                               made_up(rng), rng.choice(COMMON), "error: not found"))  # fmt: skip
        case 6:
            return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        case _:
            return prose(rng, rng.randint(4, 14))
