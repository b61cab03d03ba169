"""`/api/gallery`: what is asked, and how it is refused."""

from typing import Any

import pytest
from quart.typing import TestClientProtocol as Client

from api.app import create_app
from tests.api.support import events
from tests.helpers.fakes import FakeGallery, FakeInference


@pytest.fixture
def gallery() -> FakeGallery:
    return FakeGallery()


@pytest.fixture
def client(gallery: FakeGallery) -> Client:
    return create_app(FakeInference(), gallery=gallery).test_client()


async def test_an_install_is_answered_at_once_with_where_to_look(client: Client, gallery: FakeGallery) -> None:
    answer = await client.post("/api/gallery/install", json={"source": "hf://a/b", "context": 8192, "node": "b 1"})

    body = await answer.get_json()
    assert answer.status_code == 202
    assert body["url"] == "/api/gallery/jobs/job-1?node=b%201"
    assert body["events"] == "/api/gallery/jobs/job-1/events?node=b%201"
    assert gallery.asked == [("install", {"source": "hf://a/b", "context": 8192}, "b 1")]


async def test_an_install_everywhere_tells_of_every_node(client: Client, gallery: FakeGallery) -> None:
    answer = await client.post("/api/gallery/install", json={"source": "hf://a/b", "everywhere": True})

    jobs = (await answer.get_json())["jobs"]
    assert answer.status_code == 202
    assert jobs[0]["url"] == "/api/gallery/jobs/job-1?node=a"
    assert jobs[1] == {"state": "failed", "error": "no", "node": "b"}
    assert gallery.asked == [("install everywhere", {"source": "hf://a/b"}, None)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "source"),
        ({"source": ""}, "source"),
        ({"source": 1}, "source"),
        ({"source": "x", "node": "b", "everywhere": True}, "everywhere"),
        ({"source": "x", "context": -1}, "context"),
        ({"source": "x", "allow_pickle": "yes"}, "allow_pickle"),
    ],
)
async def test_an_install_that_makes_no_sense_is_refused(
    client: Client, gallery: FakeGallery, body: dict[str, Any], param: str
) -> None:
    answer = await client.post("/api/gallery/install", json=body)

    assert answer.status_code == 400
    assert (await answer.get_json())["error"]["param"] == param
    assert gallery.asked == []


async def test_an_install_is_watched_until_it_is_over(client: Client) -> None:
    answer = await client.get("/api/gallery/jobs/job-1/events?node=b")

    assert [event["state"] for event in events(await answer.get_data())] == ["queued", "running", "done"]


async def test_an_unknown_install_is_a_404_and_no_stream(client: Client) -> None:
    answer = await client.get("/api/gallery/jobs/other/events")

    assert answer.status_code == 404
    assert (await answer.get_json())["error"]["code"] == "job_not_found"


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/api/gallery/jobs", ("jobs", {}, None)),
        ("GET", "/api/gallery/jobs/job-1", ("job", {"id": "job-1"}, None)),
        ("DELETE", "/api/gallery/jobs/job-1?node=b", ("cancel", {"id": "job-1"}, "b")),
        ("POST", "/api/gallery/jobs/job-1/retry", ("retry", {"id": "job-1"}, None)),
        ("GET", "/api/gallery/models/x?node=b", ("show", {"name": "x"}, "b")),
        ("DELETE", "/api/gallery/models/x", ("remove", {"name": "x"}, None)),
        ("POST", "/api/gallery/models/x/verify", ("verify", {"name": "x"}, None)),
        ("POST", "/api/gallery/gc?node=b", ("gc", {}, "b")),
    ],
)
async def test_each_question_reaches_the_node_that_is_meant(
    client: Client, gallery: FakeGallery, method: str, path: str, asked: tuple[str, dict[str, Any], Any]
) -> None:
    answer = await client.open(path, method=method)

    assert answer.status_code in (200, 202)
    assert gallery.asked == [asked]


async def test_the_gallery_is_searched(client: Client) -> None:
    answer = await client.get("/api/gallery?q=crow")

    assert (await answer.get_json())["entries"] == [{"name": "crow"}]
