"""`python -m bench.range_server FILE`: serves one file with ranges, by `sendfile`; prints its port."""

import os
import re
import socket
import sys
import threading
from pathlib import Path


def main() -> None:
    path = Path(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, path), daemon=True).start()


def serve(connection: socket.socket, path: Path) -> None:
    """One request, one answer."""
    with connection, path.open("rb") as file:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        size = path.stat().st_size
        span = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d+)", head)
        first, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        lines = ["HTTP/1.1 206 Partial Content" if span else "HTTP/1.1 200 OK", 'ETag: "bench"', "Connection: close"]
        lines += [f"Content-Length: {last - first + 1}"]
        lines += [f"Content-Range: bytes {first}-{last}/{size}"] if span else []
        try:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            while first <= last:
                first += os.sendfile(connection.fileno(), file.fileno(), first, last - first + 1)
        except OSError:
            return


if __name__ == "__main__":
    main()
