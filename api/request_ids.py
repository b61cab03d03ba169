"""The id that follows one request through logs, peers and backends."""

import re
from os import urandom

_SANE = re.compile(rb"[A-Za-z0-9._:=+@/-]{1,128}\Z")


def request_id(offered: bytes | None) -> str:
    """The client's own id if it is safe to log and to send back, else a fresh one."""
    if offered is not None and _SANE.match(offered):
        return offered.decode("ascii")
    return "req-" + urandom(12).hex()
