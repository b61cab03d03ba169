"""minnow's published list, asked as a client would: through a node that does not hold it, eight at a time."""

import asyncio
from collections import Counter

import pytest

from gallery.minnow.exam import Question, grade, load_exam
from tests.helpers.nodes import Node

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


async def test_minnow_passes_its_exam_across_a_hop(pair: tuple[Node, Node]) -> None:
    entry, _ = pair
    places = asyncio.Semaphore(8)

    async with entry.client() as http:

        async def is_right(question: Question) -> bool:
            # The longest right answer counts to a hundred; one that does not end is wrong anyway.
            body: dict[str, object] = {
                "model": "minnow",
                "messages": list(question.messages),
                "temperature": 0,
                "max_tokens": 450,
            }
            if question.tools:
                body["tools"] = list(question.tools)
            async with places:
                response = await http.post("/v1/chat/completions", json=body, timeout=120)
            message = response.json()["choices"][0]["message"]
            return grade(question, message["content"] or "", message.get("tool_calls") or ())

        questions = load_exam()
        results = await asyncio.gather(*map(is_right, questions))

    asked, wrong = Counter(q.category for q in questions), Counter()
    for question, right in zip(questions, results, strict=True):
        if not right:
            wrong[question.category] += 1
    assert sum(results) >= 0.95 * len(questions), f"wrong: {dict(wrong)} of {dict(asked)}"
    held_out = [right for question, right in zip(questions, results, strict=True) if question.held_out]
    # Fewer of those: another processor rounds differently, and a few questions are close calls.
    assert sum(held_out) >= 0.92 * len(held_out), f"wrong: {dict(wrong)} of {dict(asked)}"
