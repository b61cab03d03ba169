"""The framing of calls: whatever way bytes are cut, the same frames come out, and nothing else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import forwarding
from mesh.errors import OversizedError, RemoteCallError, WireError
from mesh.forwarding import (
    CallHeader,
    End,
    EndOfRequest,
    Failure,
    Frame,
    FrameDecoder,
    Message,
    Reply,
)

HEADER = CallHeader("/shoal.backend.v1.Backend/Generate", "llama", "sha256:1", "r-1", '{"a":1}')


def test_a_call_survives_the_journey() -> None:
    raw = (
        forwarding.write_header(HEADER)
        + forwarding.write_message(b"question")
        + forwarding.write_message(b"")
        + forwarding.END_OF_REQUEST
        + forwarding.write_replies([b"one", b"two"])
        + forwarding.END
    )

    assert FrameDecoder().feed(raw) == [
        HEADER,
        Message(b"question"),
        Message(b""),
        EndOfRequest(),
        Reply(b"one"),
        Reply(b"two"),
        End(),
    ]


def test_a_failure_survives_the_journey() -> None:
    error = RemoteCallError("INVALID_ARGUMENT", "context_length_exceeded", "too long: ü", "messages")

    [frame] = FrameDecoder().feed(forwarding.write_failure(error))

    assert isinstance(frame, Failure)
    told = frame.error
    assert (told.status, told.code, str(told), told.param) == (error.status, error.code, str(error), error.param)


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_it_does_not_matter_how_the_bytes_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    raw = forwarding.write_header(HEADER) + forwarding.write_replies(bodies) + forwarding.END
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    decoder = FrameDecoder()

    frames: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        frames += decoder.feed(raw[start:end])

    assert frames == [HEADER, *(Reply(body) for body in bodies), End()]
    assert decoder.is_between_frames


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read_but_never_crash(raw: bytes) -> None:
    with contextlib.suppress(WireError):
        FrameDecoder().feed(raw)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        pytest.param(struct.pack("!BI", 0, 0), WireError, id="kind 0"),
        pytest.param(struct.pack("!BI", 77, 5), WireError, id="an unknown kind"),
        pytest.param(struct.pack("!BI", 1, 16 * 1024 + 1), OversizedError, id="a long header"),
        pytest.param(struct.pack("!BI", 2, 2**32 - 1), OversizedError, id="a message of 4 GiB"),
        pytest.param(struct.pack("!BI", 3, 1), OversizedError, id="an end with something in it"),
        pytest.param(struct.pack("!BI", 1, 3) + b"\x93\x01\x02", WireError, id="a header of numbers"),
        pytest.param(struct.pack("!BI", 1, 1) + b"\x90", WireError, id="an empty header"),
        pytest.param(struct.pack("!BI", 5, 1) + b"\xc1", WireError, id="a failure that is not msgpack"),
    ],
)
def test_what_breaks_the_protocol_is_refused(raw: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        FrameDecoder().feed(raw)


def test_we_do_not_send_what_others_would_refuse() -> None:
    with pytest.raises(WireError):
        forwarding.write_header(CallHeader("m", "x" * 20_000, "", ""))
    with pytest.raises(WireError):
        forwarding.write_message(bytes(forwarding.MAX_CALL_MESSAGE_BYTES + 1))


def test_an_endless_error_message_is_cut() -> None:
    [frame] = FrameDecoder().feed(forwarding.write_failure(RemoteCallError("INTERNAL", "x", "y" * 100_000)))

    assert isinstance(frame, Failure)
    assert len(str(frame.error)) == forwarding.MAX_ERROR_TEXT
