"""The muxer: streams, windows, ends, and peers that break the rules. And that libp2p's own speaks the same."""

import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from mesh.muxer import MAX_STREAMS, WINDOW, MuxerProtocolError, Packets, Session, Stream, StreamResetError

HEADER = struct.Struct("!BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class PacketPipe:
    """One end of an in-memory connection that carries packets."""

    def __init__(self, sends: trio.MemorySendChannel[bytes], receives: trio.MemoryReceiveChannel[bytes]) -> None:
        self._sends = sends
        self._receives = receives
        self.sent: list[bytes] = []

    async def read_packet(self) -> bytes:
        try:
            return await self._receives.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return b""

    async def write_packet(self, packet: bytes) -> None:
        self.sent.append(packet)
        try:
            await self._sends.send(packet)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionResetError from error

    async def aclose(self) -> None:
        await self._sends.aclose()
        await self._receives.aclose()


def pipes() -> tuple[PacketPipe, PacketPipe]:
    there_send, there_receive = trio.open_memory_channel[bytes](2)
    back_send, back_receive = trio.open_memory_channel[bytes](2)
    return PacketPipe(there_send, back_receive), PacketPipe(back_send, there_receive)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    stream.close_write()


async def nothing(stream: Stream) -> None:
    await trio.sleep_forever()


async def until_cut(stream: Stream) -> None:
    await stream.cut.wait()


def run(test: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run a trio test; never longer than a few seconds."""

    async def bounded() -> None:
        with trio.fail_after(20):
            await test(*args)

    trio.run(bounded)


def with_pair(
    test: Callable[[Session, Session], Awaitable[None]], handler: Callable[[Stream], Awaitable[None]] = echo
) -> None:
    async def main() -> None:
        here, there = pipes()
        dialer = Session(here, is_initiator=True, on_stream=nothing)
        listener = Session(there, is_initiator=False, on_stream=handler)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            nursery.start_soon(listener.run)
            await test(dialer, listener)
            nursery.cancel_scope.cancel()

    run(main)


async def read_all(stream: Stream) -> bytes:
    data = b""
    while piece := await stream.read():
        data += piece
    return data


def test_what_is_written_is_read() -> None:
    async def test(dialer: Session, _: Session) -> None:
        stream = dialer.open_stream()
        await stream.write(b"hello")
        stream.close_write()
        assert await read_all(stream) == b"hello"

    with_pair(test)


def test_much_more_than_a_window_passes() -> None:
    async def test(dialer: Session, _: Session) -> None:
        stream = dialer.open_stream()
        sent = bytes(range(256)) * 4 * 1024 * 4
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                await stream.write(sent)
                stream.close_write()

            nursery.start_soon(write)
            assert await read_all(stream) == sent

    with_pair(test)


def test_a_reader_may_take_as_little_as_it_likes() -> None:
    async def test(dialer: Session, _: Session) -> None:
        stream = dialer.open_stream()
        await stream.write(b"hello")
        assert [await stream.read(2), await stream.read(2), await stream.read(2)] == [b"he", b"ll", b"o"]

    with_pair(test)


def test_streams_do_not_mix() -> None:
    async def test(dialer: Session, _: Session) -> None:
        streams = [dialer.open_stream() for _ in range(50)]
        for i, stream in enumerate(streams):
            await stream.write(bytes([i]) * 1000)
            stream.close_write()
        assert [await read_all(stream) for stream in streams] == [bytes([i]) * 1000 for i in range(50)]

    with_pair(test)


def test_a_closed_stream_is_forgotten_on_both_sides() -> None:
    async def test(dialer: Session, listener: Session) -> None:
        for _ in range(1000):
            stream = dialer.open_stream()
            await stream.write(b"x")
            stream.close_write()
            await read_all(stream)
        assert (dialer.open_streams, listener.open_streams) == (0, 0)

    with_pair(test)


def test_a_stream_whose_handler_ends_is_closed_on_both_sides() -> None:
    async def rude(stream: Stream) -> None:
        await stream.read()

    async def test(dialer: Session, listener: Session) -> None:
        stream = dialer.open_stream()
        await stream.write(b"x")
        with pytest.raises(StreamResetError):
            await stream.read()
        assert (dialer.open_streams, listener.open_streams) == (0, 0)

    with_pair(test, rude)


def test_a_slow_reader_stops_the_writer() -> None:
    async def test(dialer: Session, _: Session) -> None:
        stream = dialer.open_stream()
        with trio.move_on_after(0.2) as scope:
            await stream.write(bytes(10 * WINDOW))
        assert scope.cancelled_caught

    with_pair(test, nothing)


def test_one_stuck_stream_does_not_hold_up_the_others() -> None:
    async def stuck_if_told(stream: Stream) -> None:
        if await stream.read(1) == b"!":
            await trio.sleep_forever()
        await stream.write(b"fine")

    async def test(dialer: Session, _: Session) -> None:
        stuck = dialer.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck.write, b"!" + bytes(2 * WINDOW))
            await trio.testing.wait_all_tasks_blocked()
            other = dialer.open_stream()
            await other.write(b"?")
            assert await other.read() == b"fine"
            nursery.cancel_scope.cancel()

    with_pair(test, stuck_if_told)


def test_a_reset_is_noticed_at_once_by_reader_and_writer() -> None:
    noticed: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            while True:
                await stream.read()
        except StreamResetError:
            noticed.append("reset")

    async def test(dialer: Session, _: Session) -> None:
        stream = dialer.open_stream()
        await stream.write(b"x")
        stream.reset()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert noticed == ["reset"]
        with pytest.raises(StreamResetError):
            await stream.write(b"x")

    with_pair(test, handler)


def test_what_arrived_before_the_connection_broke_can_still_be_read() -> None:
    async def answer_and_die(stream: Stream) -> None:
        await stream.write(b"last words")
        await trio.sleep_forever()

    async def test(dialer: Session, listener: Session) -> None:
        stream = dialer.open_stream()
        await stream.write(b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        listener.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await stream.read() == b"last words"
        with pytest.raises(StreamResetError):
            await stream.read()
        with pytest.raises(StreamResetError):
            dialer.open_stream()

    with_pair(test, answer_and_die)


def test_frames_of_many_streams_leave_in_few_packets() -> None:
    async def main() -> None:
        here, there = pipes()
        dialer = Session(here, is_initiator=True, on_stream=nothing)
        listener = Session(there, is_initiator=False, on_stream=nothing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            nursery.start_soon(listener.run)
            streams = [dialer.open_stream() for _ in range(100)]
            for stream in streams:
                await stream.write(b"token")
            await trio.testing.wait_all_tasks_blocked()
            assert len(here.sent) <= 3
            nursery.cancel_scope.cancel()

    run(main)


def test_many_writers_that_wait_for_room_all_go_on() -> None:
    async def main() -> None:
        here, there = pipes()
        read: dict[int, int] = {}

        async def count(stream: Stream) -> None:
            while data := await stream.read():
                read[stream.stream_id] = read.get(stream.stream_id, 0) + len(data)

        dialer = Session(here, is_initiator=True, on_stream=nothing)
        listener = Session(there, is_initiator=False, on_stream=count)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            async with trio.open_nursery() as writers:
                for _ in range(20):
                    writers.start_soon(dialer.open_stream().write, bytes(200_000))
                # Nobody takes packets yet, so all of them come to wait.
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(listener.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert sorted(read.values()) == [200_000] * 20

    run(main)


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream_id, length) + body


async def feed(packets: Packets, *words: bytes) -> None:
    for word in words:
        await packets.write_packet(word)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([b"GET / HTTP/1.1\r\n"], id="not yamux"),
        pytest.param([frame(DATA, SYN, 1, 2**31)], id="a frame of 2 GiB"),
        pytest.param([frame(DATA, SYN, 1, WINDOW, bytes(WINDOW)), frame(DATA, 0, 1, 1, b"x")], id="beyond the window"),
        pytest.param([frame(DATA, SYN, 2, 1, b"x")], id="a stream id of ours"),
        pytest.param([frame(DATA, SYN, 0, 1, b"x")], id="stream 0"),
        pytest.param([frame(DATA, SYN, 1, 1, b"x"), frame(DATA, SYN, 1, 1, b"x")], id="a stream opened twice"),
        pytest.param([frame(WINDOW_UPDATE, SYN, 1, 2**32 - 1), frame(WINDOW_UPDATE, 0, 1, 2)], id="window"),
        pytest.param([frame(9, 0, 1, 0)], id="an unknown kind"),
        pytest.param([frame(DATA, SYN, 1, 0, version=3)], id="another version"),
    ],
)
def test_a_peer_that_breaks_the_rules_loses_the_connection(words: list[bytes]) -> None:
    async def main() -> None:
        here, there = pipes()
        session = Session(there, is_initiator=False, on_stream=nothing)
        caught: list[BaseException] = []

        async def serve() -> None:
            try:
                await session.run()
            except* MuxerProtocolError as group:
                caught.extend(group.exceptions)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(feed, here, *words)
            while await here.read_packet():
                pass
        assert caught
        assert session.is_closed

    run(main)


def test_a_peer_may_open_only_so_many_streams() -> None:
    async def test(dialer: Session, listener: Session) -> None:
        for _ in range(MAX_STREAMS + 50):
            dialer.open_stream()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert listener.open_streams == MAX_STREAMS
        assert dialer.open_streams == MAX_STREAMS

    with_pair(test, nothing)


@pytest.mark.parametrize("kind", [PING, WINDOW_UPDATE], ids=["pings", "streams opened and reset"])
def test_a_peer_that_makes_work_without_end_loses_the_connection(kind: int) -> None:
    async def main() -> None:
        here, there = pipes()
        session = Session(there, is_initiator=False, on_stream=until_cut)
        words = [
            frame(kind, SYN if kind == PING else SYN | RST, n if kind != PING else 0, 0) for n in range(1, 20000, 2)
        ]
        caught: list[BaseException] = []

        async def carry() -> None:
            try:
                await session.run()
            except* MuxerProtocolError as group:
                caught.append(group)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            with contextlib.suppress(ConnectionResetError):
                for start in range(0, len(words), 1000):
                    await here.write_packet(b"".join(words[start : start + 1000]))
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        assert caught

    trio.run(main, clock=trio.testing.MockClock())  # No time passes: however slow this machine is, it is a flood.


def test_a_ping_is_answered() -> None:
    async def main() -> None:
        here, there = pipes()
        session = Session(there, is_initiator=False, on_stream=nothing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await here.write_packet(frame(PING, SYN, 0, 77))
            assert await here.read_packet() == frame(PING, ACK, 0, 77)
            nursery.cancel_scope.cancel()

    run(main)


def test_bytes_may_be_cut_anywhere() -> None:
    async def main() -> None:
        here, there = pipes()
        got: list[bytes] = []

        async def handler(stream: Stream) -> None:
            got.append(await read_all(stream))

        session = Session(there, is_initiator=False, on_stream=handler)
        raw = frame(DATA, SYN, 1, 5, b"hello") + frame(WINDOW_UPDATE, FIN, 1, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            for byte in raw:
                await here.write_packet(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
            assert got == [b"hello"]
            nursery.cancel_scope.cancel()

    run(main)


def test_libp2ps_own_muxer_understands_ours_and_the_other_way_round() -> None:
    pytest.importorskip("libp2p")
    from libp2p.stream_muxer.yamux.yamux import Yamux

    class SecureConn:
        """What libp2p's muxer wants of an encrypted connection."""

        def __init__(self, pipe: PacketPipe) -> None:
            self._pipe = pipe
            self._unread = b""
            self.is_initiator = False

        async def read(self, n: int | None = None) -> bytes:
            while n is not None and len(self._unread) < n:
                packet = await self._pipe.read_packet()
                if not packet:
                    break
                self._unread += packet
            data, self._unread = self._unread[:n], self._unread[n:]
            return data

        async def write(self, data: bytes) -> None:
            await self._pipe.write_packet(data)

        async def close(self) -> None:
            await self._pipe.aclose()

    async def main() -> None:
        here, there = pipes()
        theirs: Any = Yamux(SecureConn(there), peer_id=None, is_initiator=False)  # type: ignore[arg-type]
        ours = Session(here, is_initiator=True, on_stream=echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.start)
            nursery.start_soon(ours.run)

            stream = ours.open_stream()
            await stream.write(b"from us")
            accepted = await theirs.accept_stream()
            assert await accepted.read(7) == b"from us"
            await accepted.write(b"from them")
            await accepted.close()
            assert await read_all(stream) == b"from them"
            stream.close_write()

            opened = await theirs.open_stream()
            await opened.write(b"x" * 100_000)
            got = b""
            while len(got) < 100_000:
                got += await opened.read(70_000)
            assert got == b"x" * 100_000
            nursery.cancel_scope.cancel()

    run(main)
