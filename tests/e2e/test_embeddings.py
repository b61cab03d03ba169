"""A trained sentence encoder behind a node that does not hold it, as its authors describe it."""

import base64
from collections.abc import AsyncIterator
from itertools import combinations
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from tests.helpers.bert import Floats, minilm, random_bert
from tests.helpers.nodes import mesh_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

BERT = minilm()
ALIKE = [
    ("That is a happy person.", "That is a very happy person."),
    ("A man is eating food.", "A man is eating a meal."),
    ("How do I reset my password?", "I forgot my password, how can I change it?"),
    ("The new movie is awesome.", "The new film is so great!"),
]
SENTENCES = [sentence for pair in ALIKE for sentence in pair]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def entry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of node a; the models lie in b's folder."""
    root = tmp_path_factory.mktemp("encoders")
    models = root / "b" / "models"
    models.mkdir(parents=True)
    BERT.write(models / "minilm.gguf", "mean")
    random_bert().write(models / "judge.gguf", "rank")
    async with mesh_of(root, "ab") as (a, _), a.client() as http:

        async def are_listed() -> bool:
            models = (await http.get("/v1/models")).json()["data"]
            return {"minilm", "judge"} <= {model["id"] for model in models}

        await until(are_listed, "the encoders to be listed")
        yield http


async def vectors(http: httpx.AsyncClient, texts: list[str], **more: Any) -> Floats:
    answer = await http.post("/v1/embeddings", json={"model": "minilm", "input": texts, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-shoal-node"] == "b"
    return np.array([entry["embedding"] for entry in answer.json()["data"]], dtype=np.float32)


async def test_vectors_agree_with_the_reference(entry: httpx.AsyncClient) -> None:
    texts = [*SENTENCES, "Crème brûlée, unbelievably good!!", "3.14159 " * 60, "x"]

    found = await vectors(entry, texts)

    expected = np.array([BERT.vector(BERT.framed(BERT.tokens(text)), "mean") for text in texts])
    assert found.shape == (len(texts), 384)
    assert (found * expected).sum(1) == pytest.approx(np.ones(len(texts)), abs=1e-3)


async def test_similar_sentences_are_close_and_unrelated_ones_far(entry: httpx.AsyncClient) -> None:
    found = await vectors(entry, SENTENCES)

    likeness = found @ found.T
    pairs = {(2 * n, 2 * n + 1) for n in range(len(ALIKE))}
    near = [likeness[pair] for pair in pairs]
    far = [likeness[pair] for pair in combinations(range(len(SENTENCES)), 2) if pair not in pairs]
    assert min(near) > 0.65
    assert max(far) < 0.35


async def test_base64_and_fewer_dimensions_say_the_same(entry: httpx.AsyncClient) -> None:
    [whole] = await vectors(entry, SENTENCES[:1])
    [short] = await vectors(entry, SENTENCES[:1], dimensions=64)
    body = {"model": "minilm", "input": SENTENCES[0], "encoding_format": "base64"}
    packed = (await entry.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]

    assert short == pytest.approx(whole[:64] / np.linalg.norm(whole[:64]), abs=1e-5)
    assert np.frombuffer(base64.b64decode(packed), dtype="<f4") == pytest.approx(whole, abs=1e-5)


async def test_a_text_longer_than_the_model_reads_is_a_400(entry: httpx.AsyncClient) -> None:
    answer = await entry.post("/v1/embeddings", json={"model": "minilm", "input": ["short", "word " * 600]})

    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert "602 tokens" in error["message"]
    assert "at most 512" in error["message"]


async def test_documents_are_ranked_by_likeness_or_by_a_model_made_for_it(entry: httpx.AsyncClient) -> None:
    query, documents = "How tall is the tower?", ["I like cheese.", "The tower is 300 m high.", "Rain again."]
    body = {"query": query, "documents": documents}

    alike = (await entry.post("/v1/rerank", json={"model": "minilm", **body})).json()["results"]
    judged = (await entry.post("/v1/rerank", json={"model": "judge", **body})).json()["results"]

    assert alike[0]["index"] == 1
    judge = random_bert()
    pairs = [judge.framed(judge.tokens(query), judge.tokens(document)) for document in documents]
    expected = [float(judge.vector(pair, "rank")[0]) for pair in pairs]
    assert {r["index"]: r["relevance_score"] for r in judged} == pytest.approx(dict(enumerate(expected)), abs=5e-3)


async def test_a_chat_with_an_encoder_is_refused(entry: httpx.AsyncClient) -> None:
    body = {"model": "minilm", "messages": [{"role": "user", "content": "Hello"}]}

    answer = await entry.post("/v1/chat/completions", json=body)

    assert answer.status_code == 400
    assert "has no chat" in answer.json()["error"]["message"]
