"""Proofs of membership, and which of two connections stays."""

from dataclasses import replace

import pytest

from mesh.membership import Introduction, Link, is_proven, keeps_the_new, prove

KEY = b"k" * 32
MEETING = Introduction("A", "B", b"1" * 32, b"2" * 32, b"sa", b"sb")


def test_who_holds_the_token_can_prove_it() -> None:
    assert is_proven(KEY, "dialer", MEETING, prove(KEY, "dialer", MEETING))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(MEETING, dialer="C"), id="another dialer"),
        pytest.param(replace(MEETING, listener="C"), id="passed on to another listener"),
        pytest.param(replace(MEETING, dialer_nonce=b"3" * 32), id="replayed to a dialer"),
        pytest.param(replace(MEETING, listener_nonce=b"3" * 32), id="replayed to a listener"),
        pytest.param(replace(MEETING, dialer_session=b"xx"), id="another process"),
        pytest.param(replace(MEETING, dialer="AB", listener=""), id="the same letters, cut elsewhere"),
    ],
)
def test_a_proof_is_good_for_one_meeting_only(other: Introduction) -> None:
    assert not is_proven(KEY, "dialer", other, prove(KEY, "dialer", MEETING))


def test_a_proof_cannot_be_reflected() -> None:
    assert not is_proven(KEY, "dialer", MEETING, prove(KEY, "listener", MEETING))


@pytest.mark.parametrize("proof", [b"", b"\0" * 32, prove(b"x" * 32, "dialer", MEETING)])
def test_who_does_not_hold_the_token_cannot(proof: bytes) -> None:
    assert not is_proven(KEY, "dialer", MEETING, proof)


HERE = Link(dialed_here=True, session=b"1", since=10.0)
THERE = Link(dialed_here=False, session=b"1", since=10.0)


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        pytest.param(HERE, replace(HERE, session=b"2"), True, id="the peer has restarted"),
        pytest.param(HERE, replace(THERE, since=60.0), True, id="the peer saw the old one break"),
        pytest.param(HERE, replace(HERE, since=11.0), True, id="we dialled again"),
    ],
)
def test_a_leftover_connection_is_replaced(old: Link, new: Link, stays: bool) -> None:
    assert keeps_the_new(old, new, "a", "b") is stays


def test_when_both_dial_at_once_both_keep_the_same_connection() -> None:
    # For a, the connection a dialled is HERE; for b it is THERE. a is the smaller id.
    a_keeps_own = not keeps_the_new(old=HERE, new=THERE, self_id="a", peer_id="b")
    b_keeps_a_s = keeps_the_new(old=HERE, new=THERE, self_id="b", peer_id="a")

    assert a_keeps_own
    assert b_keeps_a_s
