"""Sound to text through the whole product: any node, the official client."""

import io
from pathlib import Path

import faster_whisper
import openai
import pytest

from tests.helpers.nodes import mesh_of
from tests.helpers.tiny_whisper import write_tiny_whisper
from tests.helpers.transcriptions import add_whisper, noise, wav

pytestmark = pytest.mark.e2e


async def test_a_node_without_the_model_transcribes_as_the_library_would(tmp_path: Path) -> None:
    data = wav(noise(75))
    expected, info = faster_whisper.WhisperModel(str(write_tiny_whisper(tmp_path / "yard"))).transcribe(
        io.BytesIO(data)
    )
    segments = list(expected)
    (tmp_path / "b" / "models").mkdir(parents=True)
    add_whisper(tmp_path / "b" / "models")
    async with mesh_of(tmp_path, "ab") as (a, b):
        await b.load("whisper", "b")
        await a.until_sees("b", model="whisper", held_by="b")
        async with openai.AsyncOpenAI(base_url=f"{a.api}/v1", api_key="none") as ai:
            answer = await ai.audio.transcriptions.with_raw_response.create(
                model="whisper", file=("noise.wav", data), response_format="verbose_json"
            )
            heard = answer.parse()

        assert answer.headers["x-shoal-node"] == "b"
        assert heard.text == "".join(s.text for s in segments).strip() != ""
        assert heard.language == info.language
        assert heard.duration == pytest.approx(75)
        assert [(s.start, s.end, s.text) for s in heard.segments] == [
            (pytest.approx(s.start), pytest.approx(s.end), s.text) for s in segments
        ]
