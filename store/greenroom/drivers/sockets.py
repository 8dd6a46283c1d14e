"""Sockets of a store: how they are configured, connected and closed."""

import errno
import os
import socket
import struct
from typing import Any

from greenroom import loopback, silence
from greenroom.tls.sockets import Stream

RECEIVE_BYTES = 256 * 1024
KEEPALIVE_PROBES = 3

_RESET = struct.pack("ii", 1, 0)


class BeyondLoopbackError(OSError):
    """The connection would have left this host in plaintext, so it was not made."""

    def __init__(self) -> None:
        super().__init__(loopback.REASON)


class Connection:
    """One connection of a runner. `reached` is the address that was tried last."""

    __slots__ = ("number", "reached", "sock", "unsent", "writing")

    def __init__(self, number: int) -> None:
        self.number = number
        self.reached = ""
        self.sock: Stream | None = None
        self.unsent = bytearray()
        self.writing = False


def told(failure: OSError | str) -> str:
    """Return why something failed, as a clause."""
    return failure if isinstance(failure, str) else failure.strerror or str(failure)


def configured_socket(family: int) -> socket.socket:
    """Return a non-blocking TCP socket that sends at once and soon notices a lost peer."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_USER_TIMEOUT", round(silence.STORE.user_timeout_seconds * 1000)),
            ("TCP_KEEPIDLE", silence.STORE.idle_seconds),
            ("TCP_KEEPINTVL", silence.STORE.interval_seconds),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, name):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except BaseException:
        sock.close()
        raise
    return sock


def start_connecting(sock: socket.socket, address: Any) -> None:
    """Begin to connect; the socket becomes writable when it succeeds or fails. Raises OSError."""
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        raise OSError(code, os.strerror(code))


def finish_connecting(sock: socket.socket) -> None:
    """Raise OSError if the attempt to connect has failed."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def reset_on_close(sock: Stream) -> None:
    """Make `close` reset the connection, so that bytes still in its buffers never arrive."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def close_descriptor(sock: Stream) -> None:
    """Close the socket even if its event loop still counts it as used (as uvloop does)."""
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def numeric_address(host: str, port: int) -> tuple[int, Any] | None:
    """Return (family, address) if the host needs no look-up, else None."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family, (host, port)
    return None
