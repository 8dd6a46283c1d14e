"""Socket options for TCP connections between cluster processes."""

import socket
import struct

from greenroom.addresses import join_address
from greenroom.silence import Silence
from greenroom.tls.sockets import Stream

_LINGER_ZERO = struct.pack("ii", 1, 0)


def configure(sock: Stream, silence: Silence) -> None:
    """Set it up to send at once, never block, and notice that the other side is gone."""
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # End the connection if the other side acknowledges or reads nothing for this long.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(silence.user_timeout_seconds * 1000))
    # End it too if it is silent because the other side vanished.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, silence.idle_seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, silence.interval_seconds)


def remote_name(sock: Stream) -> str:
    """Return `host:port` of the other side, for logs."""
    try:
        host, port = sock.getpeername()[:2]
    except (OSError, ValueError):
        return "unknown"
    return join_address(host, port)


def remote_host(remote: str) -> str:
    """Return the host, a number, of what `remote_name` says; empty if that is not known."""
    return remote.rpartition(":")[0].removeprefix("[").removesuffix("]")


def local_name(sock: Stream) -> str:
    """Return `host:port` at which a connection came in. Raises OSError."""
    host, port = sock.getsockname()[:2]
    return join_address(host, port)


def charged_as(remote: str, number: int) -> str:
    """Return the account charged for a connection's requests: its host, or on loopback the connection itself.

    `remote` as `remote_name` says it, `number` of the connection.
    """
    host = remote_host(remote)
    if host in ("", "::1") or host.startswith(("127.", "::ffff:127.")):
        return f"{remote}#{number}"
    return host


def reset_on_close(sock: Stream) -> None:
    """Make `close` reset the connection: bytes queued on either side never arrive."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
