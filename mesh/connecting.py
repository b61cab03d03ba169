"""From a node's addresses to an encrypted connection with it: several are tried, the first that leads there is taken.

Not here: whether the peer is a member, and what becomes of the connection (`mesh.service`).
"""

from collections.abc import Callable, Sequence

import trio

from mesh.addresses import Address
from mesh.config import MeshConfig
from mesh.errors import MeshError
from mesh.libp2p_host import ForeignNetworkError, Libp2pHost, SecureConnection
from mesh.types import NodeId

STAGGER = 0.15
"""Seconds between trying one address of a node and trying the next as well."""


class Unreachable(MeshError):
    """None of a node's addresses worked. `is_refused`: on all, the machine said nobody listens. `is_cut`: somebody
    took the connection and hung up."""

    def __init__(
        self, reason: str, *, is_refused: bool = False, is_stranger: bool = False, is_cut: bool = False
    ) -> None:
        super().__init__(reason)
        self.is_refused = is_refused
        self.is_stranger = is_stranger
        self.is_cut = is_cut


class Connector:
    """Opens connections for one node."""

    def __init__(self, config: MeshConfig, host: Libp2pHost, refuse: Callable[[str, int | None, str], None]) -> None:
        """`refuse` is told the host, port and reason of who turns out to be no part of this mesh."""
        self._config = config
        self._host = host
        self._refuse = refuse

    async def reach(self, addresses: Sequence[Address], expected: NodeId | None) -> SecureConnection:
        """A connection through the first address that leads to the right node; the next is tried soon after the last.

        Raises:
            Unreachable: no address worked.
        """
        found: list[SecureConnection] = []
        errors: list[Exception] = []

        async def attempt(address: Address, scope: trio.CancelScope, failed: trio.Event) -> None:
            try:
                secure = await self._connect(address, expected)
            except (OSError, MeshError, trio.TooSlowError) as error:
                errors.append(error)
                failed.set()
                return
            if found:
                await secure.aclose()
            else:
                found.append(secure)
                scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, nursery.cancel_scope, failed)
                    with trio.move_on_after(STAGGER):
                        await failed.wait()
        except BaseException:
            for secure in found:
                secure.abort()
            raise
        if found:
            return found[0]
        raise Unreachable(
            "; ".join(dict.fromkeys(_told(error) for error in errors)) or "no address that can be dialled",
            is_refused=bool(errors) and all(isinstance(e, ConnectionRefusedError) for e in errors),
            is_stranger=any(isinstance(e, ForeignNetworkError) for e in errors),
            is_cut=any(isinstance(e, MeshError) and not isinstance(e, ForeignNetworkError) for e in errors),
        )

    async def _connect(self, address: Address, expected: NodeId | None) -> SecureConnection:
        try:
            with trio.fail_after(self._config.connect_timeout):
                stream = await trio.open_tcp_stream(address.host, address.port)
        except trio.TooSlowError as error:
            raise TimeoutError("does not answer") from error
        except OSError as error:
            raise _plain(error) from error
        try:
            with trio.fail_after(self._config.handshake_timeout):
                return await self._host.secure_outbound(stream, expected)
        except ForeignNetworkError as error:
            self._refuse(address.host, address.port, str(error))
            await trio.aclose_forcefully(stream)
            raise
        except BaseException:
            with trio.CancelScope() as scope:
                scope.shield = True
                await trio.aclose_forcefully(stream)
            raise


def _told(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "takes connections, and says nothing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def innermost(error: BaseException) -> BaseException:
    """The first error in a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _plain(error: OSError) -> OSError:
    """The one error behind trio's group of one per address of a name."""
    cause = None if error.__cause__ is None else innermost(error.__cause__)
    return cause if isinstance(cause, OSError) else error
