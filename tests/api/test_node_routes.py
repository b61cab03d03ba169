"""Models, health, the mesh, metrics, and paths that are not there."""

from typing import Any, ClassVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.support import ASK, CHAT, client
from tests.helpers.fakes import FakeInference


async def test_models_are_listed_once_each() -> None:
    body = await (await client().get("/v1/models")).get_json()

    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["org/parrot", "parrot"]
    assert body["data"][0]["object"] == "model"
    assert body["data"][0]["loaded_on"] == ["fake-node"]


@pytest.mark.parametrize("path", ["/v1/models/parrot", "/v1/models/org/parrot", "/v1/models/org%2Fparrot"])
async def test_one_model_is_found_by_name_even_with_slashes(path: str) -> None:
    response = await client().get(path)

    assert response.status_code == 200
    assert (await response.get_json())["id"].endswith("parrot")


async def test_an_unknown_model_is_not_found() -> None:
    response = await client().get("/v1/models/nobody")

    assert response.status_code == 404
    assert (await response.get_json())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "node"),
    [
        pytest.param(b"", None, id="no body"),
        pytest.param(b"{}", None, id="no node"),
        pytest.param(b'{"node": null}', None, id="null"),
        pytest.param(b'{"node": "b"}', "b", id="a node"),
    ],
)
@pytest.mark.parametrize("what", ["load", "unload"])
async def test_models_are_loaded_and_unloaded_where_one_says(what: str, body: bytes, node: str | None) -> None:
    fake = FakeInference()

    response = await client(fake).post(f"/api/models/org/parrot/{what}", data=body)

    assert response.status_code == 200
    assert fake.admin == [(what, "org/parrot", node)]


async def test_a_node_must_be_a_name() -> None:
    response = await client().post("/api/models/parrot/load", json={"node": 1})

    assert response.status_code == 400
    assert (await response.get_json())["error"]["param"] == "node"


async def test_health_is_about_the_process_and_readiness_about_the_node() -> None:
    fake = FakeInference()
    fake.ready = False
    asks = client(fake)

    assert (await asks.get("/healthz")).status_code == 200
    assert (await asks.get("/readyz")).status_code == 503
    fake.ready = True
    assert (await asks.get("/readyz")).status_code == 200


async def test_the_mesh_is_shown() -> None:
    body = await (await client().get("/api/mesh")).get_json()

    assert body["nodes"][0]["state"] == "alive"


async def test_a_route_is_explained_for_a_model_and_for_a_request_and_nothing_runs() -> None:
    fake = FakeInference()
    asks = client(fake)

    by_name = await (await asks.get("/api/mesh/route?model=org/parrot")).get_json()
    by_request = await (await asks.post("/api/mesh/route", json=ASK)).get_json()

    assert by_name["model"] == "org/parrot"
    assert by_request["candidates"][0]["name"] == "fake-node"
    assert fake.calls == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("", 400, "invalid_value"), ("?model=", 400, "invalid_value"), ("?model=nobody", 404, "model_not_found")],
)
async def test_a_route_is_explained_only_for_a_model_there_is(query: str, status: int, code: str) -> None:
    response = await client().get(f"/api/mesh/route{query}")

    assert response.status_code == status
    assert (await response.get_json())["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/nope", 404, "not_found"),
        ("GET", "/v1//models", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_said_in_the_openai_shape(method: str, path: str, status: int, code: str) -> None:
    response = await client(node_name="näme").open(path, method=method, json=None)

    assert response.status_code == status
    assert (await response.get_json())["error"]["code"] == code
    assert response.headers["x-request-id"]
    assert response.headers["x-shoal-node"] == "n?me"
    assert response.headers["x-shoal-route"] == "here"
    assert ("allow" in response.headers) is (status == 405)


async def test_the_root_says_what_this_is() -> None:
    response = await client().get("/")

    assert b"OpenAI" in await response.get_data()


async def test_metrics_count_requests_tokens_and_first_tokens() -> None:
    asks = client()
    await asks.post(CHAT, json=ASK)
    await asks.post(CHAT, json={**ASK, "stream": True})
    await asks.post(CHAT, json={**ASK, "n": 0})
    await asks.get("/made/up/by/the/client")

    page = await (await asks.get("/metrics")).get_data(as_text=True)

    samples = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
    }
    chat = ("endpoint", CHAT)
    assert samples["shoal_http_requests_total", chat, ("status", "200")] == 2
    assert samples["shoal_http_requests_total", chat, ("status", "400")] == 1
    assert samples["shoal_http_requests_total", ("endpoint", "none"), ("status", "404")] == 1
    assert samples["shoal_first_token_seconds_count", chat] == 2
    assert samples["shoal_tokens_total", ("kind", "completion"), ("model", "parrot")] == 6
    assert samples["shoal_http_requests_in_flight",] == 1


class TestCors:
    PREFLIGHT: ClassVar = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }

    async def ask(self, headers: dict[str, str], method: str = "OPTIONS", **config: Any) -> Any:
        return await client(**config).open(CHAT, method=method, headers=headers, json=None)

    async def test_a_page_of_this_machine_gets_its_preflight(self) -> None:
        response = await self.ask(self.PREFLIGHT)

        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "x-stainless-os" in response.headers["access-control-allow-headers"]
        assert "POST" in response.headers["access-control-allow-methods"]

    async def test_a_page_from_elsewhere_gets_nothing(self) -> None:
        for method in ("OPTIONS", "POST"):
            response = await self.ask({**self.PREFLIGHT, "origin": "https://evil.com"}, method)

            assert response.status_code == 403
            assert "access-control-allow-origin" not in response.headers

    async def test_a_preflight_needs_no_key_but_the_request_does(self) -> None:
        config = {"host": "0.0.0.0", "api_key": "k"}
        headers = {**self.PREFLIGHT, "origin": "https://chat.example"}

        assert (await self.ask(headers, **config)).status_code == 204
        assert (await self.ask({"origin": "https://chat.example"}, "POST", **config)).status_code == 401
        assert (await self.ask({}, "OPTIONS", **config)).status_code == 401


async def test_without_the_key_the_answer_is_401_and_nothing_runs() -> None:
    fake = FakeInference()

    response = await client(fake, host="0.0.0.0", api_key="k").post(CHAT, json=ASK)

    assert response.status_code == 401
    assert (await response.get_json())["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert not fake.calls
