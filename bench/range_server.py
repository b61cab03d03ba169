"""`python -m bench.range_server FILE`: serves one file with ranges, by `sendfile`; prints its port.

It is also a registry that has the file under any name (`oci://127.0.0.1:PORT/bench/big`), and says at /sent how many
bytes of it have left so far.
"""

import hashlib
import json
import os
import re
import socket
import sys
import threading
from pathlib import Path

SENT = [0]
LOCK = threading.Lock()


def main() -> None:
    path = Path(sys.argv[1])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{sha256}",
        "size": path.stat().st_size,
    }
    manifest = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, path, manifest), daemon=True).start()


def serve(connection: socket.socket, path: Path, manifest: bytes) -> None:
    """One request, one answer."""
    with connection, path.open("rb") as file:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        asked = head.split(b" ", 2)[1]
        if asked == b"/sent" or b"/manifests/" in asked:
            body = manifest if b"/manifests/" in asked else str(SENT[0]).encode()
            lines = ["HTTP/1.1 200 OK", "Connection: close", f"Content-Length: {len(body)}", "", ""]
            connection.sendall("\r\n".join(lines).encode() + body)
            return
        size = path.stat().st_size
        span = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d+)", head)
        first, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        lines = ["HTTP/1.1 206 Partial Content" if span else "HTTP/1.1 200 OK", 'ETag: "bench"', "Connection: close"]
        lines += [f"Content-Length: {last - first + 1}"]
        lines += [f"Content-Range: bytes {first}-{last}/{size}"] if span else []
        try:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            while first <= last:
                count = os.sendfile(connection.fileno(), file.fileno(), first, min(1 << 20, last - first + 1))
                first += count
                with LOCK:
                    SENT[0] += count
        except OSError:
            return


if __name__ == "__main__":
    main()
