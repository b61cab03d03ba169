"""A network of its own for tests: hosts as network namespaces, joined by a bridge. Needs root (Linux).

    with lan("red", "blue") as hosts: ...      hosts["red"].address == "10.211.7.2"

Multicast works on the bridge as on a real switch, and nothing leaves this machine.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

SUBNET = "10.211.7"

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the test network."""

    name: str
    namespace: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it on this host."""
        return ("ip", "netns", "exec", self.namespace)

    def cut_link(self) -> None:
        """As if the cable were pulled."""
        ip("-n", self.namespace, "link", "set", "eth0", "down")

    def lose(self, other: "Host") -> None:
        """Nothing that is meant for `other` leaves this host; multicast does."""
        ip("-n", self.namespace, "route", "add", "blackhole", other.address)

    def find(self, other: "Host") -> None:
        ip("-n", self.namespace, "route", "del", "blackhole", other.address)

    def mend_link(self) -> None:
        ip("-n", self.namespace, "link", "set", "eth0", "up")


def why_not() -> str:
    """Why no test network can be made here, or ""."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (package iproute2) is missing"
    return ""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def lan(*names: str) -> Iterator[dict[str, Host]]:
    """Hosts on one network, removed at the end."""
    # Never the same names twice: the kernel takes its time with the removal of the last ones.
    tag = f"{os.getpid() % 10000:04}{next(_numbers):02}"
    bridge = f"shb{tag}"
    hosts = {
        name: Host(name, f"shoal-{tag}-{name}", f"{SUBNET}.{number}") for number, name in enumerate(names, start=2)
    }
    with contextlib.ExitStack() as cleanup:
        ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        cleanup.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{SUBNET}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, host in enumerate(hosts.values()):
            outer = f"shv{tag}{number}"
            ip("netns", "add", host.namespace)
            cleanup.callback(ip, "netns", "del", host.namespace)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("link", "set", outer, "master", bridge, "up")
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.namespace, "link", "set", "lo", "up")
            ip("-n", host.namespace, "link", "set", "eth0", "up")
            ip("-n", host.namespace, "route", "add", "default", "via", f"{SUBNET}.1")
        yield hosts
