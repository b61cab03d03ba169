"""Spoken on one node, heard through another on a third: what comes back is what was said. And conch's exam."""

import io
import wave

import httpx
import pytest
import pytest_asyncio

from gallery.conch.exam import Question, load_exam, sound, word_errors
from gallery.conch.speaking import SAMPLE_RATE, Samples, Speaker
from tests.helpers.nodes import Node, mesh_of

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SAID = ("three one four, one five nine", "stop, go left, seven", "two zero two six")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """`a` speaks, `b` holds nothing, `c` hears."""
    async with mesh_of(tmp_path_factory.mktemp("loop"), "abc") as (a, b, c):
        await a.load("espeak", "a")
        await c.load("conch", "c")
        await b.until_sees("c", model="conch", held_by="c")
        await b.until_sees("a", model="espeak", held_by="a")
        yield a, b, c


async def transcribed(http: httpx.AsyncClient, data: bytes, name: str) -> httpx.Response:
    answer = await http.post(
        "/v1/audio/transcriptions", data={"model": "conch"}, files={"file": (name, data)}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("kind", ["wav", "mp3", "opus"])
async def test_what_is_said_on_a_is_heard_through_b_on_c(nodes: tuple[Node, Node, Node], kind: str) -> None:
    a, b, _ = nodes
    wrong = 0
    async with a.client() as speaking, b.client() as listening:
        for text in SAID:
            request = {"model": "espeak", "voice": "alloy", "input": text, "response_format": kind}
            spoken = await speaking.post("/v1/audio/speech", json=request)
            assert spoken.headers["x-shoal-node"] == "a"
            heard = await transcribed(listening, spoken.content, f"said.{kind}")
            assert heard.headers["x-shoal-node"] == "c"
            wrong += word_errors(text.replace(",", "").split(), heard.json()["text"])

    assert wrong <= 0.1 * sum(len(text.split()) for text in SAID)


async def test_conch_passes_its_exam_across_a_hop(nodes: tuple[Node, Node, Node]) -> None:
    _, b, _ = nodes
    wrong = asked = 0
    with Speaker() as speaker:
        questions = [(question, sound(question, speaker)) for question in load_exam() if _is_short(question)]
    async with b.client() as http:
        for question, samples in questions:
            heard = await transcribed(http, _wav(samples), "question.wav")
            wrong += word_errors(question.words, heard.json()["text"])
            asked += len(question.words)

    assert asked >= 150
    assert wrong <= 0.1 * asked


def _is_short(question: Question) -> bool:
    """A third of those in voices never heard, and all the silence; the whole list is asked without the mesh."""
    return question.held_out and (not question.words or int(question.id.rsplit("-", 1)[1]) % 3 == 0)


def _wav(samples: Samples) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return written.getvalue()
