"""`POST /v1/embeddings`."""

from array import array
from base64 import b64decode
from typing import Any

import pytest

from tests.api.support import client

PATH = "/v1/embeddings"


async def test_vectors_come_in_the_order_of_their_texts() -> None:
    response = await client().post(PATH, json={"model": "parrot", "input": ["a", "bcd"]})

    body = await response.get_json()
    assert body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 0.5, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [3.0, 0.5, 0.5]},
        ],
        "model": "parrot",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert response.headers["x-shoal-node"] == "fake-node"


async def test_base64_holds_the_same_floats() -> None:
    ask = {"model": "parrot", "input": "abc", "encoding_format": "base64", "dimensions": 2}

    body = await (await client().post(PATH, json=ask)).get_json()

    assert array("f", b64decode(body["data"][0]["embedding"])).tolist() == [3.0, 0.5]


@pytest.mark.parametrize("value", ["ab", ["ab"], [1, 2], [[1, 2]]])
async def test_an_input_has_four_forms(value: Any) -> None:
    response = await client().post(PATH, json={"model": "parrot", "input": value})

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"input": None}, "input", id="no input"),
        pytest.param({"input": ""}, "input", id="an empty text"),
        pytest.param({"input": ["a", ""]}, "input", id="an empty text among others"),
        pytest.param({"input": []}, "input", id="no texts"),
        pytest.param({"input": ["a"] * 2049}, "input", id="too many texts"),
        pytest.param({"input": 1.5}, "input", id="a number"),
        pytest.param({"encoding_format": "hex"}, "encoding_format", id="an unknown encoding"),
        pytest.param({"dimensions": 0}, "dimensions", id="no dimensions"),
    ],
)
async def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    response = await client().post(PATH, json={"model": "parrot", "input": "a", **fields})

    assert response.status_code == 400
    assert (await response.get_json())["error"]["param"] == param
