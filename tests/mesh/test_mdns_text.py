"""mDNS announcements: ours can be read, others' are believed only as far as they make sense."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.addresses import Address
from mesh.identity import Identity
from mesh.mdns_text import Heard, read_text, write_text

ONE, OTHER = (Identity.from_seed(bytes([i]) * 32).node_id for i in range(2))
AT = f"/ip4/10.0.0.1/tcp/4001/p2p/{ONE}"


def strings(*texts: str) -> bytes:
    return b"".join(bytes([len(t)]) + t.encode() for t in texts)


def test_an_announcement_survives_the_journey() -> None:
    text = write_text([AT, f"/ip4/127.0.0.1/tcp/4001/p2p/{ONE}"], "abc123")

    assert read_text(text) == Heard(ONE, "abc123", (Address("10.0.0.1", 4001, ONE), Address("127.0.0.1", 4001, ONE)))


def test_it_has_the_form_of_the_libp2p_specification() -> None:
    assert strings(f"dnsaddr={AT}") in write_text([AT], "abc123")


def test_other_libp2p_programs_are_not_ours() -> None:
    assert read_text(strings(f"dnsaddr={AT}")) is None


def test_addresses_we_cannot_dial_are_skipped() -> None:
    heard = read_text(strings("shoal=abc", f"dnsaddr=/ip4/10.0.0.1/udp/1/quic-v1/p2p/{ONE}", f"dnsaddr={AT}"))

    assert heard is not None
    assert heard.addresses == (Address("10.0.0.1", 4001, ONE),)


def test_one_announcement_speaks_of_one_node() -> None:
    heard = read_text(strings("shoal=abc", f"dnsaddr={AT}", f"dnsaddr=/ip4/10.0.0.2/tcp/1/p2p/{OTHER}"))

    assert heard is not None
    assert {a.node_id for a in heard.addresses} == {ONE}


def test_an_address_without_an_id_is_worth_nothing() -> None:
    assert read_text(strings("shoal=abc", "dnsaddr=/ip4/10.0.0.1/tcp/4001")) is None


@given(st.binary(max_size=300))
def test_random_bytes_never_crash(text: bytes) -> None:
    read_text(text)


def test_too_much_is_not_read() -> None:
    assert read_text(strings("shoal=abc", *[f"dnsaddr={AT}"] * 100)) is None
