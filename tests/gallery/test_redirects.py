"""Where a download may be led."""

import socket
from pathlib import Path
from typing import Any

import pytest

from gallery.errors import InstallError
from gallery.redirects import is_private, redirected, split
from gallery.web import Web
from tests.helpers.file_server import FileServer


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::a00:1", True),
        ("64:ff9b::808:808", False),
        ("2002:7f00:1::", True),
    ],
)
def test_addresses_of_this_network_are_told_from_public_ones(address: str, private: bool) -> None:
    assert is_private(address) is private


def test_a_redirect_to_nonsense_is_refused() -> None:
    with pytest.raises(InstallError, match="redirects to no web address"):
        redirected("http://h.example/x.gguf", "http://[::bad/x.gguf", {})


def test_a_redirect_may_not_leave_encryption() -> None:
    with pytest.raises(InstallError, match="plain http"):
        redirected("https://a.example/x", "http://a.example/x", {})


@pytest.mark.parametrize(
    "url", ["ftp://a/x", "file:///etc/passwd", "http://", "http://a:b/", "http://a/x y", "x", "https://me:secret@a/x"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(InstallError):
        split(url)


def test_a_public_server_may_not_lead_into_this_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(files={"/secret": b"x"}) as inside, FileServer(host="127.0.0.3") as outside:
        outside.redirects["/x"] = inside.url + "/secret"
        # A name that is public, as far as its address tells; where it really leads is our server.
        real = socket.create_connection
        monkeypatch.setattr(
            socket,
            "create_connection",
            lambda where, *rest: real(("127.0.0.3", outside.port) if where[0] == "8.8.8.8" else where, *rest),
        )
        monkeypatch.setattr(socket, "getaddrinfo", resolving({"public.example": "8.8.8.8"}))
        url = f"http://public.example:{outside.port}/x"

        with pytest.raises(InstallError, match="private address") as caught, Web(url).get(url):
            pass

        assert caught.value.code == "unsafe"
        assert inside.requests == []


def test_an_address_that_was_typed_may_be_private_and_lead_to_private_ones(tmp_path: Path) -> None:
    with FileServer(files={"/y": b"x"}) as other, FileServer(host="127.0.0.3") as typed:
        typed.redirects["/x"] = other.url + "/y"

        with Web(typed.url).get(typed.url + "/x") as answer:
            assert answer.text() == b"x"


def test_an_address_that_nobody_typed_may_not_be_private() -> None:
    with (
        FileServer(files={"/y": b"x"}) as server,
        pytest.raises(InstallError, match="refused"),
        Web().get(server.url + "/y"),
    ):
        pass


def test_redirects_in_circles_end() -> None:
    with FileServer() as server:
        server.redirects["/a"] = "/a"

        with pytest.raises(InstallError, match="circles"), Web(server.url).get(server.url + "/a"):
            pass


def resolving(names: dict[str, str]) -> Any:
    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names.get(host, host), port))]

    return getaddrinfo
