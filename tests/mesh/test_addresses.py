"""Addresses: typed, announced, and tried in a sensible order."""

import pytest

from mesh.addresses import Address, in_dialling_order, parse_address
from mesh.errors import AddressError
from mesh.identity import Identity

ID = Identity.from_seed(bytes(32)).node_id


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.0.7:4002", Address("192.168.0.7", 4002)),
        ("192.168.0.7", Address("192.168.0.7", 4001)),
        ("desk.local:99", Address("desk.local", 99)),
        (" desk ", Address("desk", 4001)),
        ("[fe80::1]:99", Address("fe80::1", 99)),
        ("[fe80::1]", Address("fe80::1", 4001)),
        ("fe80::1", Address("fe80::1", 4001)),
        ("/ip4/10.0.0.1/tcp/5", Address("10.0.0.1", 5)),
        (f"/ip4/10.0.0.1/tcp/5/p2p/{ID}", Address("10.0.0.1", 5, ID)),
        ("/ip6/::1/tcp/5", Address("::1", 5)),
        ("/dns4/desk.local/tcp/5", Address("desk.local", 5)),
    ],
)
def test_every_usual_form_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":4001",
        "host:0",
        "host:65536",
        "host:port",
        "http://host:4001",
        "a b:4001",
        "/ip4/10.0.0.1/udp/5/quic-v1",
        "/ip4/10.0.0.1/tcp/5/ws",
        "/ip4/10.0.0.300/tcp/5",
        "/ip4/::1/tcp/5",
        "/ip4/10.0.0.1/tcp/5/p2p/nonsense",
        "/ip4/10.0.0.1/tcp/5/p2p/" + "1" * 500,
        "/unix/tmp",
    ],
)
def test_anything_else_is_one_clear_error(text: str) -> None:
    with pytest.raises(AddressError, match=r"address|port|dial|id"):
        parse_address(text)


LOOPBACK, DESK, LAPTOP = "/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"


@pytest.mark.parametrize(
    ("announced", "hosts"),
    [
        pytest.param([DESK, LOOPBACK], ["10.0.0.1"], id="elsewhere: its loopback is not ours"),
        pytest.param([LAPTOP, LOOPBACK], ["127.0.0.1", "10.0.0.2"], id="on this machine: loopback is best"),
        pytest.param([LOOPBACK], ["127.0.0.1"], id="nothing but loopback: try it"),
        pytest.param(["/ip4/1.2.3.4/udp/1/quic-v1", DESK], ["10.0.0.1"], id="unknown transports are skipped"),
        pytest.param(["nonsense:x"], [], id="nothing that can be dialled"),
    ],
)
def test_the_most_promising_address_is_tried_first(announced: list[str], hosts: list[str]) -> None:
    assert [a.host for a in in_dialling_order(announced, {"10.0.0.2", "127.0.0.1"})] == hosts
