"""What one process has received from another over TCP, by the kernel's counters.

Connections that are open are read with `ss` (iproute2). Those that ended are told by the kernel when it
destroys them (netlink, `sock_diag`): copies of shards come over connections of their own, each of which lives
shorter than a look takes.
"""

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from benchmarks.processes import MissingError

Ends: TypeAlias = tuple[str, str]
"""A socket's own address, and that of the other end."""

_PIDS = re.compile(r"pid=(\d+)")
_RECEIVED = re.compile(r"\bbytes_received:(\d+)")
_SS_SECONDS = 10.0

# From linux/sock_diag.h and linux/inet_diag.h.
_NETLINK_SOCK_DIAG = 4
_TCP_DESTROYED = 1  # the first group, as a mask
_HEADER = struct.Struct("=IHHII")
_PORTS = struct.Struct(">HH")
_ATTRIBUTE = struct.Struct("=HH")
_PORTS_AT, _SOURCE_AT, _TARGET_AT, _ATTRIBUTES_AT = 20, 24, 40, 88
_INFO, _RECEIVED_AT = 2, 128
_BUFFER_BYTES = 4 << 20
_POLL_SECONDS = 0.1


class Socket(NamedTuple):
    """One end of a connection: who holds it, and what it has received."""

    pids: frozenset[int]
    received: int


def sockets_of(text: str) -> dict[Ends, Socket]:
    """Return the sockets in what `ss` says, a line each."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        received = _RECEIVED.search(line)
        pids = frozenset(int(pid) for pid in _PIDS.findall(line))
        found[fields[2], fields[3]] = Socket(pids, int(received[1]) if received else 0)
    return found


def destroyed_in(datagram: bytes) -> dict[Ends, int]:
    """Return the IPv4 sockets that a datagram of the kernel's tells the end of, and what each received."""
    found = {}
    at = 0
    while at + _ATTRIBUTES_AT <= len(datagram):
        length = _HEADER.unpack_from(datagram, at)[0]
        message = datagram[at : at + length]
        at += max(length, _HEADER.size)
        if len(message) < _ATTRIBUTES_AT or message[_HEADER.size] != socket.AF_INET:
            continue
        info = _attribute(message, _INFO)
        if len(info) >= _RECEIVED_AT + 8:
            own_port, other_port = _PORTS.unpack_from(message, _PORTS_AT)
            own = socket.inet_ntoa(message[_SOURCE_AT : _SOURCE_AT + 4])
            other = socket.inet_ntoa(message[_TARGET_AT : _TARGET_AT + 4])
            (received,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
            found[f"{own}:{own_port}", f"{other}:{other_port}"] = received
    return found


def _attribute(message: bytes, wanted: int) -> bytes:
    at = _ATTRIBUTES_AT
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == wanted:
            return message[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return b""


class Traffic:
    """Counts what comes to one process from another, over connections that begin after `with`.

    Of connections that ended before anyone looked, those to the receiver's own address count, unless the
    client was seen at the other end; short questions about the state of the cluster are among them. Raises
    MissingError if the kernel or the machine does not tell.
    """

    def __init__(self, client: int) -> None:
        program = shutil.which("ss")
        if program is None:
            raise MissingError("ss is not installed: apt-get install iproute2")
        self._command = [program, "-tinpOH", "state", "established"]
        self._client = client
        self._others: set[Ends] = set()
        self._live: dict[Ends, int] = {}
        self._ended: dict[Ends, int] = {}
        self._over = Event()
        self._thread = Thread(target=self._listen, name="traffic")
        self._failure: OSError | None = None
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)

    def __enter__(self) -> Self:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _TCP_DESTROYED))
        except OSError as error:
            self._socket.close()
            raise MissingError(f"the kernel does not tell of connections that end: {error}") from error
        self._socket.settimeout(_POLL_SECONDS)
        self._thread.start()
        # Those of a former process at that address: it is about to be killed.
        self._others |= self._sockets().keys()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._ended.update(destroyed_in(self._socket.recv(1 << 16)))
            except TimeoutError:
                continue
            except OSError as error:  # more than fit into the buffer: the count would be too low
                self._failure = error
                return

    def _sockets(self) -> dict[Ends, Socket]:
        said = subprocess.run(self._command, capture_output=True, text=True, check=True, timeout=_SS_SECONDS)
        return sockets_of(said.stdout)

    def look(self, receiver: int, address: str, sender: int) -> int:
        """Return how many bytes the receiver, an actor at that address, has had from the sender by now.

        Raises RuntimeError if something was missed.
        """
        sockets = self._sockets()
        self._others |= _ends_between(sockets, receiver, self._client).keys()
        for ends, count in _ends_between(sockets, receiver, sender).items():
            self._live[ends] = max(count, self._live.get(ends, 0))
        if self._failure is not None:
            raise RuntimeError(f"not all connections that ended were told: {self._failure}")
        return counted(self._live, dict(self._ended), self._others, address)


def counted(live: Mapping[Ends, int], ended: Mapping[Ends, int], others: set[Ends], address: str) -> int:
    """Return the sum over connections, each once: what it had at its end, or else at the last look."""
    received = dict(live)
    for ends, count in ended.items():
        if ends in live or (ends[0] == address and ends not in others):
            received[ends] = max(count, received.get(ends, 0))
    return sum(received.values())


def _ends_between(sockets: Mapping[Ends, Socket], receiver: int, sender: int) -> dict[Ends, int]:
    """Return the receiver's ends of its connections with the sender, and what each has received."""
    return {
        (own, other): each.received
        for (own, other), each in sockets.items()
        if receiver in each.pids and (end := sockets.get((other, own))) is not None and sender in end.pids
    }
