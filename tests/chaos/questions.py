"""What is asked in a chaos run, and what an answer is reduced to so that two can be compared.

The echo model's answers are computed here; minnow's are what it says before anything goes wrong. Temperature 0.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

CHAT, COMPLETION, EMBEDDING = "/chat/completions", "/completions", "/embeddings"


@dataclass(slots=True)
class Choice:
    """One of an answer's choices."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Name and arguments, by index."""
    tokens: list[str] = field(default_factory=list)
    """From the logprobs."""
    reason: str = ""
    ends: int = 0
    """How often a finish reason came. Once is right."""


@dataclass(slots=True)
class Reduced:
    """What of an answer must be the same every time. Equal answers are right ones."""

    choices: dict[int, Choice] = field(default_factory=dict)
    completion_tokens: int = 0
    vectors: list[list[float]] = field(default_factory=list)

    def choice(self, index: int) -> Choice:
        return self.choices.setdefault(index, Choice())


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of request."""

    name: str
    path: str
    body: dict[str, Any]
    expected: Reduced | None = None
    """None: what the undisturbed model says."""
    leaves: bool = False
    """The client goes away in the middle of the answer."""
    breaks: bool = False
    """The client's connection breaks in the middle, and it reads the rest afterwards."""
    moves: bool = False
    """… through another node."""

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


def take_chunk(answer: Reduced, chunk: Any) -> None:
    """Adds one chunk of a streamed answer, as the API's JSON."""
    for part in chunk.get("choices", ()):
        choice = answer.choice(part["index"])
        delta = part.get("delta")
        if delta is None:
            choice.text += part.get("text") or ""
        else:
            choice.text += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                said = choice.calls.setdefault(call["index"], ["", ""])
                said[0] += call["function"].get("name") or ""
                said[1] += call["function"].get("arguments") or ""
        _take_rest(choice, part)
    if usage := chunk.get("usage"):
        answer.completion_tokens = usage["completion_tokens"]


def whole(body: Any) -> Reduced:
    """An answer that came in one piece, as the API's JSON."""
    answer = Reduced(completion_tokens=body["usage"].get("completion_tokens", 0))
    if body["object"] == "list":
        answer.vectors = [item["embedding"] for item in body["data"]]
        return answer
    for part in body["choices"]:
        choice = answer.choice(part["index"])
        message = part.get("message")
        choice.text = (part.get("text") if message is None else message.get("content")) or ""
        for number, call in enumerate((message or {}).get("tool_calls") or ()):
            choice.calls[number] = [call["function"]["name"], call["function"]["arguments"]]
        _take_rest(choice, part)
    return answer


def _take_rest(choice: Choice, part: Any) -> None:
    content = (part.get("logprobs") or {}).get("content") or ()
    choice.tokens += [entry["token"] for entry in content]
    if part.get("finish_reason"):
        choice.reason = part["finish_reason"]
        choice.ends += 1


def same(one: Reduced, other: Reduced) -> bool:
    """Equal, and vectors nearly so: engines round differently in batches of different sizes."""
    alike = len(one.vectors) == len(other.vectors) and all(
        len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-3) for x, y in zip(a, b, strict=True))
        for a, b in zip(one.vectors, other.vectors, strict=True)
    )
    return alike and (one.choices, one.completion_tokens) == (other.choices, other.completion_tokens)


def lost_and_doubled(expected: Reduced, got: Reduced) -> tuple[int, int]:
    """How many words are missing, and how many came twice, over all choices."""
    lost = doubled = 0
    for index in expected.choices.keys() | got.choices.keys():
        words = [_words(answer.choices.get(index, Choice())) for answer in (expected, got)]
        known = Counter(words[0])
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, words[0], words[1], autojunk=False).get_opcodes():
            if tag in ("delete", "replace"):
                lost += i2 - i1
            if tag in ("insert", "replace"):
                doubled += sum(word in known for word in words[1][j1:j2])
    return lost, doubled


def _words(choice: Choice) -> list[str]:
    return [*choice.text.split(), *(part for call in choice.calls.values() for part in call)]


# ---------------------------------------------------------------- the mix

WEATHER = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CITY = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
            "required": ["city", "people"],
            "additionalProperties": False,
        },
    },
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
RESUMABLE = {"stream": True, "stream_options": {"include_usage": True, "resumable": True}}


def story(words: int) -> str:
    """A text of which every word differs, so that a lost or doubled one shows."""
    return " ".join(f"word{number}" for number in range(words))


def told(words: int, *, choices: int = 1, has_tokens: bool = False) -> Reduced:
    """What the echo model makes of a story."""
    text = story(words)
    tokens = [word if number == 0 else f" {word}" for number, word in enumerate(text.split())]
    choice = [Choice(text=text, tokens=tokens if has_tokens else [], reason="stop", ends=1) for _ in range(choices)]
    return Reduced(dict(enumerate(choice)), completion_tokens=words * choices)


def echo(words: int, interval: float, **more: Any) -> dict[str, Any]:
    return {
        "model": "echo",
        "messages": [{"role": "user", "content": story(words)}],
        "chat_template_kwargs": {"token_interval": interval},
        **more,
    }


def minnow(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "minnow", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}


def mix() -> list[Question]:
    """Every kind of request, the streamed ones of echo long enough to be hit by something."""
    call = 'call get_weather {"city": "Paris", "in": "the coming three days"}'
    called = Choice(calls={0: ["get_weather", call.removeprefix("call get_weather ")]}, reason="tool_calls", ends=1)
    tool = {"model": "echo", "messages": [{"role": "user", "content": call}], "tools": WEATHER}
    slow = {"chat_template_kwargs": {"token_interval": 0.15}}
    return [
        Question("echo, streamed", CHAT, echo(200, 0.02, **STREAM), told(200)),
        Question("echo, streamed for long", CHAT, echo(150, 0.04, **STREAM), told(150)),
        Question("echo, whole", CHAT, echo(60, 0.02), told(60)),
        Question(
            "echo, two choices, logprobs",
            CHAT,
            echo(80, 0.02, n=2, logprobs=True, **STREAM),
            told(80, choices=2, has_tokens=True),
        ),
        Question("echo, resumed", CHAT, echo(120, 0.02, **RESUMABLE), told(120), breaks=True),
        Question(
            "echo, resumed at another node", CHAT, echo(130, 0.02, **RESUMABLE), told(130), breaks=True, moves=True
        ),
        Question(
            "minnow, resumed at another node",
            CHAT,
            minnow("Count from 1 to 60.", **RESUMABLE),
            breaks=True,
            moves=True,
        ),
        Question("echo, client leaves", CHAT, echo(200, 0.02, **STREAM), told(200), leaves=True),
        Question("echo, tool", CHAT, {**tool, **slow, **STREAM}, Reduced({0: called}, completion_tokens=7)),
        Question("echo, completion", COMPLETION, {"model": "echo", "prompt": story(40), "max_tokens": 100}, told(40)),
        Question("echo, vectors", EMBEDDING, {"model": "echo", "input": [story(3), "another"]}),
        Question("minnow, streamed", CHAT, minnow("Count from 1 to 100.", **STREAM)),
        Question("minnow, whole", CHAT, minnow("What is the capital of France?")),
        Question("minnow, logprobs", CHAT, minnow("Count from 1 to 30.", logprobs=True, **STREAM)),
        Question("minnow, two choices", CHAT, minnow("Count from 1 to 40.", n=2, **STREAM)),
        Question("minnow, tool", CHAT, minnow("What is the weather in Paris?", tools=WEATHER, **STREAM)),
        Question("minnow, schema", CHAT, minnow("Tell me about Paris.", response_format=CITY, **STREAM)),
        Question(
            "minnow, completion",
            COMPLETION,
            {"model": "minnow", "prompt": "1, 2, 3,", "max_tokens": 40, "temperature": 0},
        ),
        Question("minnow, vectors", EMBEDDING, {"model": "minnow", "input": ["red", "blue"]}),
    ]


def described(answer: Reduced, most: int = 160) -> str:
    """For a message about a wrong answer."""
    said = {index: (c.text or c.calls, c.reason, c.ends) for index, c in sorted(answer.choices.items())}
    text = json.dumps(said, ensure_ascii=False)
    return f"{text[:most]}{' …' if len(text) > most else ''} ({answer.completion_tokens} tokens)"


def names(questions: Iterable[Question]) -> Sequence[str]:
    return [question.name for question in questions]
