"""A bad cable: joins two network interfaces of this machine, and delays and loses what passes. Needs root (Linux).

    python -m tests.helpers.cable IF1 IF2 DELAY JITTER LOSS      seconds, seconds, share of packets; until SIGTERM
    python -m tests.helpers.cable --plain IF                     no offloading: what leaves IF are whole packets

What `tc netem` does, for kernels that are built without it. Packets keep their order.
"""

import ctypes
import fcntl
import heapq
import itertools
import random
import select
import socket
import struct
import sys
import time

SIOCETHTOOL = 0x8946
OFFLOADS = (0x17, 0x1F, 0x24)
"""ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO. With them, the kernel leaves checksums and cutting into packets to the
next device, and who reads the cable would have to do that."""

LARGEST = 65536
ALL_PROTOCOLS = 3


def make_plain(interface: str) -> None:
    """Has the kernel finish every packet before it leaves `interface`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for offload in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", offload, 0), 8)
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, SIOCETHTOOL, request.ljust(40, b"\0"))


def join(one: str, other: str, delay: float, jitter: float, loss: float) -> None:
    """Carries packets for ever."""
    ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) for _ in range(2)]
    for end, interface in zip(ends, (one, other), strict=True):
        end.bind((interface, 0))
        end.setblocking(False)
    across = {ends[0]: ends[1], ends[1]: ends[0]}
    latest = dict.fromkeys(ends, 0.0)
    numbers = itertools.count()
    under_way: list[tuple[float, int, socket.socket, bytes]] = []
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select(ends, [], [], wait)
        now = time.monotonic()
        for end in ready:
            frame, origin = end.recvfrom(LARGEST)
            if origin[2] == socket.PACKET_OUTGOING or random.random() < loss:
                continue
            latest[end] = max(latest[end], now + delay + random.uniform(0, jitter))
            heapq.heappush(under_way, (latest[end], next(numbers), across[end], frame))
        while under_way and under_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(under_way)
            try:
                end.send(frame)
            except OSError:
                continue  # The interface is down: lost, as on a real one.


if __name__ == "__main__":
    if sys.argv[1] == "--plain":
        make_plain(sys.argv[2])
    else:
        join(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]))
