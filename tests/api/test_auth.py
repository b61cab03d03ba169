"""Who is let in."""

import pytest

from api.auth import Gate, is_loopback, names_this_machine
from api.config import ApiConfig
from api.errors import AuthenticationError, ForbiddenError

KEY = "sk-mesh"


def gate(**config: object) -> Gate:
    return Gate(ApiConfig(**config))  # type: ignore[arg-type]


def admits(of: Gate, path: str = "/v1/models", **head: str) -> bool:
    of.admit(path, {name.replace("_", "-").encode(): value.encode() for name, value in head.items()})
    return True


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "app.localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"],
)
def test_these_names_can_only_mean_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.evil.com", "127.0.0.1.evil.com"]
)
def test_these_names_may_mean_another_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("localhost:8080", True, id="name and port"),
        pytest.param("[::1]:8080", True, id="IPv6 and port"),
        pytest.param("127.0.0.1", True, id="no port"),
        pytest.param("evil.com:8080", False, id="a rebound name"),
        pytest.param("evil.com@localhost", False, id="user info"),
        pytest.param("localhost:80:80", False, id="two ports"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_a_host_header_names_this_machine_or_not(host: str, expected: bool) -> None:
    assert names_this_machine(host) is expected


class TestOnLoopback:
    def test_programs_of_this_machine_need_no_key(self) -> None:
        assert admits(gate(api_key=KEY), host="localhost:8080")

    def test_a_wrong_key_is_ignored(self) -> None:
        assert admits(gate(api_key=KEY), host="127.0.0.1", authorization="Bearer whatever")

    @pytest.mark.parametrize(
        "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:9", "tauri://localhost"]
    )
    def test_pages_of_this_machine_may_call(self, origin: str) -> None:
        assert admits(gate(), host="localhost", origin=origin)

    @pytest.mark.parametrize(
        "origin", ["https://evil.com", "null", "", "http://localhost.evil.com", "http://user@localhost"]
    )
    def test_pages_from_elsewhere_are_refused(self, origin: str) -> None:
        with pytest.raises(ForbiddenError):
            admits(gate(), host="localhost", origin=origin)

    def test_a_rebound_host_name_is_refused(self) -> None:
        with pytest.raises(ForbiddenError, match="evil"):
            admits(gate(), host="evil.com:8080")

    def test_a_page_that_was_allowed_by_name_may_call(self) -> None:
        chat = gate(allowed_origins=("https://chat.example/",))

        assert admits(chat, host="localhost", origin="https://chat.example")


class TestWithAKey:
    @pytest.mark.parametrize(
        "head",
        [
            pytest.param({"authorization": f"Bearer {KEY}"}, id="bearer"),
            pytest.param({"authorization": f"bearer  {KEY} "}, id="bearer, sloppily"),
            pytest.param({"x_api_key": KEY}, id="x-api-key"),
            pytest.param({"authorization": "Basic eHg=", "x_api_key": KEY}, id="a proxy's own, and x-api-key"),
        ],
    )
    def test_the_key_opens(self, head: dict[str, str]) -> None:
        assert admits(gate(host="0.0.0.0", api_key=KEY), host="10.0.0.1", **head)

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param({}, id="none"),
            pytest.param({"authorization": "Bearer "}, id="empty"),
            pytest.param({"authorization": f"Bearer {KEY}x"}, id="longer"),
            pytest.param({"authorization": f"Basic {KEY}"}, id="wrong scheme"),
            pytest.param({"x_api_key": "sk-mes"}, id="shorter"),
        ],
    )
    def test_nothing_else_does(self, head: dict[str, str]) -> None:
        with pytest.raises(AuthenticationError):
            admits(gate(host="0.0.0.0", api_key=KEY), host="10.0.0.1", **head)

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz/"])
    def test_health_needs_no_key(self, path: str) -> None:
        assert admits(gate(host="0.0.0.0", api_key=KEY), path, host="10.0.0.1")

    def test_without_a_key_it_does_not_even_start(self) -> None:
        with pytest.raises(ValueError, match="needs an api_key"):
            gate(host="0.0.0.0")

    def test_the_key_is_not_in_the_configs_repr(self) -> None:
        assert KEY not in repr(ApiConfig(api_key=KEY))


class TestOpen:
    def test_everyone_is_let_in(self) -> None:
        assert admits(gate(host="0.0.0.0", open=True), host="10.0.0.1:8080")

    def test_pages_of_the_node_itself_may_call(self) -> None:
        assert admits(gate(host="0.0.0.0", open=True), host="10.0.0.1:8080", origin="http://10.0.0.1:8080")

    def test_pages_from_elsewhere_are_refused(self) -> None:
        with pytest.raises(ForbiddenError):
            admits(gate(host="0.0.0.0", open=True), host="10.0.0.1:8080", origin="https://evil.com")
