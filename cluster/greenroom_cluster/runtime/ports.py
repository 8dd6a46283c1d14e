"""Choice of ports before the process that listens on them is started."""

import errno
import random
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog
import trio

from greenroom.addresses import join_address
from greenroom.errors import UsageError
from greenroom_cluster.exposure import TLS_FLAGS, exposed

ACTOR_PORT_OPTION = "--actor-port-base (GREENROOM_ACTOR_PORT_BASE)"
_POLL_SECONDS = 0.02
_LOWEST = 10_240
_ATTEMPTS = 500
_log = structlog.get_logger(__name__)
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(host: str = "127.0.0.1", option: str = "--listen") -> int:
    """Return a port of `host` that no process is bound to now; see `reserved_port`."""
    with reserved_port(host, option) as held:
        return int(held.getsockname()[1])


def reserved_port(host: str = "127.0.0.1", option: str = "--listen") -> socket.socket:
    """Return a socket that holds a port of `host` to which no other process was bound.

    While it is open nobody else is given that port here, and one of our processes can still listen on it: the
    kernel lets several sockets be bound to an address that say so (SO_REUSEADDR), as long as none of them
    listens. The port lies below the range that the kernel uses for outgoing connections: so none of those can
    take it, and a connection made to it too early cannot connect to itself. Raises UsageError, naming the
    option, if none can be found, or the host is not one of this machine.
    """
    choice = random.SystemRandom()
    highest = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    if highest - _LOWEST < _ATTEMPTS:
        highest = 65_535
    for _ in range(_ATTEMPTS):
        port = choice.randrange(_LOWEST, highest)
        try:
            return hold_port(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # no other port would do
                raise cannot_listen(host, error, option) from None
    raise UsageError(f"no free port of {host} was found: choose another address with {option}")


def hold_port(host: str, port: int) -> socket.socket:
    """Return a socket that holds this port, see `reserved_port`. Raises OSError if another does."""
    family, address = _to_listen_at(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # First without the option, so that another holder of this port is noticed.
        sock.bind(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def check_port(host: str, port: int, option: str = "--listen") -> None:
    """Raise UsageError, naming the option, if this address cannot be listened on now."""
    try:
        _try_to_listen(host, port)
    except OSError as error:
        raise cannot_listen(join_address(host, port), error, option) from None


def _try_to_listen(host: str, port: int) -> None:
    with bound_socket(host, port) as probe:
        probe.listen(1)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address and does not block. Raises OSError."""
    family, address = _to_listen_at(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        # A restarted process must not wait until the kernel has forgotten its predecessor's connections.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def listening_socket(
    host: str, port: int, option: str, *, backlog: int, secured: bool, insecure: bool
) -> socket.socket:
    """Return a socket that listens on an address. Raises UsageError, naming the option, if it cannot.

    Unless it is secured or `insecure`, that includes an address beyond loopback.
    """
    where = join_address(host, port)
    try:
        sock = bound_socket(host, port)
        try:
            if not secured:
                # By what it is bound to, whatever name or form was asked for, and before anybody can connect.
                check_bound(where, sock.getsockname()[0], option, insecure=insecure)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise cannot_listen(where, error, option) from error
    return sock


def bound_host(host: str) -> str:
    """Return the number that a listener at a host is bound to; the host if it stands for nothing here."""
    try:
        return str(_to_listen_at(host, 0)[1][0])
    except (OSError, UnicodeError):
        return host


def _to_listen_at(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def cannot_listen(where: str, error: OSError, option: str) -> UsageError:
    """Return the error of an address that cannot be listened on."""
    return UsageError(f"cannot listen on {where} ({error.strerror or error}): choose another with {option}")


def check_bound(asked: str, host: str, option: str, *, insecure: bool) -> None:
    """Raise UsageError, naming the options, if a socket without TLS is bound to a host beyond loopback.

    If that is what the operator wants, the log says so.
    """
    told = exposed(asked, (host,), option)
    if told and not insecure:
        raise UsageError(told)
    if told:
        _log.warning("plaintext_beyond_loopback", address=asked, option=option)


def check_plaintext(host: str, option: str, tls_flags: str = TLS_FLAGS) -> None:
    """Raise UsageError, naming the options, if a socket for this host would be bound beyond loopback."""
    try:
        with bound_socket(host, 0) as probe:
            bound = probe.getsockname()[0]
    except OSError as error:
        raise cannot_listen(host, error, option) from None
    if told := exposed(host, (bound,), option, tls_flags):
        raise UsageError(told)


def check_advertised(address: str, host: str) -> None:
    """Raise UsageError if others are told to reach a process without TLS at a host beyond loopback."""
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        found = []
    if told := exposed(address, found, "--advertise"):
        raise UsageError(told)


async def wait_for_ports(host: str, ports: Iterable[int], option: str, seconds: float) -> None:
    """Wait until all these ports are free, because the process that holds them may be ending.

    Raises UsageError, naming the option, if one is still taken after `seconds`.
    """
    deadline = trio.current_time() + seconds
    for port in ports:
        while True:
            try:
                check_port(host, port, option)
                break
            except UsageError:
                if trio.current_time() >= deadline:
                    raise
            await trio.sleep(_POLL_SECONDS)
