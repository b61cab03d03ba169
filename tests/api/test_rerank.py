"""`POST /v1/rerank`."""

from typing import Any

import pytest

from tests.api.support import client

PATH = "/v1/rerank"
ASK: dict[str, Any] = {"model": "parrot", "query": "a fish", "documents": ["cats", {"text": "a fish"}, "a dog"]}


async def test_documents_come_with_the_best_first() -> None:
    response = await client().post(PATH, json={**ASK, "return_documents": True})

    body = await response.get_json()
    assert body == {
        "object": "list",
        "id": response.headers["x-request-id"],
        "model": "parrot",
        "results": [
            {"index": 1, "relevance_score": 1.0, "document": {"text": "a fish"}},
            {"index": 2, "relevance_score": 0.5, "document": {"text": "a dog"}},
            {"index": 0, "relevance_score": 0.0, "document": {"text": "cats"}},
        ],
        "usage": {"prompt_tokens": 15, "total_tokens": 15},
    }
    assert response.headers["x-shoal-node"] == "fake-node"


async def test_only_the_best_are_sent_and_no_texts_unless_asked_for() -> None:
    body = await (await client().post(PATH, json={**ASK, "top_n": 1})).get_json()

    assert body["results"] == [{"index": 1, "relevance_score": 1.0}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"query": ""}, "query", id="an empty query"),
        pytest.param({"query": 5}, "query", id="a query that is no text"),
        pytest.param({"documents": None}, "documents", id="no documents"),
        pytest.param({"documents": "text"}, "documents", id="one text"),
        pytest.param({"documents": []}, "documents", id="an empty array"),
        pytest.param({"documents": ["a"] * 2049}, "documents", id="too many"),
        pytest.param({"documents": ["a", {"txt": "b"}]}, "documents[1]", id="an object without a text"),
        pytest.param({"documents": ["a", ""]}, "documents[1]", id="an empty text"),
        pytest.param({"top_n": 0}, "top_n", id="none wanted"),
    ],
)
async def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    response = await client().post(PATH, json={**ASK, **fields})

    assert response.status_code == 400
    assert (await response.get_json())["error"]["param"] == param
