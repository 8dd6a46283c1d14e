"""What a server does while its cluster is moved to TLS: it speaks TLS with all who can, and tells who cannot.

Plaintext is spoken with some networks only. There a process without TLS could connect by plaintext anyway, so
to speak plaintext to one that does not know TLS yet gives nothing away.
"""

from dataclasses import dataclass
from typing import NoReturn, Protocol

import structlog
import trio

from greenroom.addresses import parse_address
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.credentials import Credentials
from greenroom_cluster.networks import Networks
from greenroom_cluster.runtime.sockets import remote_host

WARNING_SECONDS = 60.0
_HOSTS_TOLD = 10

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Credentials for all who speak TLS, and how plaintext with `networks` is secured: as before the move."""

    credentials: Credentials
    secrets: LoopbackSecrets | None
    networks: Networks

    def may_be_plain(self, address: str) -> bool:
        """Whether plaintext may be spoken with this `host:port`, whose host is a number."""
        return parse_address(address)[0] in self.networks


class Connection(Protocol):
    """A connection that has an address at its other end."""

    remote: str


class Plain:
    """The connections in plaintext that a listener has taken while its cluster is moved to TLS."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._open: set[Connection] = set()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection) -> None:
        """Note a connection in plaintext."""
        self._open.add(connection)
        self._taken += 1

    def leave(self, connection: Connection) -> None:
        """Note that a connection has ended; unknown ones are fine."""
        self._open.discard(connection)

    async def tell_forever(self, address: str) -> NoReturn:
        """Warn now and each minute that plaintext is accepted, and of whom that is still of use to."""
        while True:
            hosts = sorted({remote_host(each.remote) for each in self._open})
            taken, self._taken = self._taken, 0
            _log.warning(
                "plaintext_accepted",
                address=address,
                networks=str(self.networks),
                open=len(self._open),
                taken=taken,
                hosts=",".join(hosts[:_HOSTS_TOLD]) + (",..." if len(hosts) > _HOSTS_TOLD else ""),
            )
            await trio.sleep(WARNING_SECONDS)
