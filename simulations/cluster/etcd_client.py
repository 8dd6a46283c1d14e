"""A process's requests to etcd: each asks one member, and goes on to the next if the first is not reached.

Which member that is, how long it is waited for, whom to believe and what an answer means is decided by the
product's code. A connection is used again, as HTTP does; one whose answer did not come in time is given up,
and what was sent on it may arrive all the same.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from greenroom_cluster.coordination.etcd import gateway
from greenroom_cluster.coordination.etcd.gateway import (
    EtcdAwayError,
    EtcdRefusedError,
    LeaseOverError,
    Watched,
)
from greenroom_cluster.coordination.etcd.members import Members
from greenroom_cluster.coordination.etcd.settings import TIMEOUT_SECONDS
from simulations.cluster.etcd import Ask, Told
from simulations.kernel.network import Attempt, End
from simulations.kernel.processes import Process

Reply = TypeVar("Reply")
_AGAIN_SECONDS = 0.5
_TAG = "etcd"
_OK = 200


class _Part(msgspec.Struct, frozen=True):
    result: gateway.GivenLease = gateway.GivenLease()


class _Anything(msgspec.Struct, frozen=True):
    header: gateway.Header = gateway.Header()


class EtcdClient:
    """What one process asks of etcd. Where no answer can be had, the callback gets None.

    `refused(error)` is called with what etcd will never do.
    """

    def __init__(
        self, process: Process, addresses: Sequence[str], refused: Callable[[EtcdRefusedError], None]
    ) -> None:
        self.process = process
        self.refused = refused
        self.members = Members(addresses)
        self.idle: dict[str, list[End]] = {}

    def transact(self, body: bytes, answered: Callable[[gateway.Transacted | None], None]) -> None:
        """Do a transaction."""
        _Asking(self, Ask("kv/txn", body), gateway.Transacted, answered).begin()

    def grant(self, ttl_seconds: int, answered: Callable[[gateway.GivenLease | None], None]) -> None:
        """Make a lease."""
        body = msgspec.json.encode({"TTL": ttl_seconds})
        _Asking(self, Ask("lease/grant", body), gateway.GivenLease, answered).begin()

    def keep_alive(self, lease: int, answered: Callable[[gateway.GivenLease | None], None]) -> None:
        """Renew a lease."""

        def unwrapped(part: _Part | None) -> None:
            answered(None if part is None else part.result)

        body = msgspec.json.encode({"ID": lease})
        _Asking(self, Ask("lease/keepalive", body), _Part, unwrapped).begin()

    def revoke(self, lease: int) -> None:
        """End a lease."""
        body = msgspec.json.encode({"ID": lease})
        _Asking(self, Ask("lease/revoke", body), _Anything, lambda _: None).begin()

    def watch(self, key: bytes, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever etcd tells that a key has changed; again and again."""
        _Watching(self, Ask("watch", gateway.watch_body(gateway.Range(key), 0)), changed).begin()


class _Asking(Generic[Reply]):
    """One request. `_turn` tells which wait a timer belongs to."""

    def __init__(
        self, client: EtcdClient, ask: Ask, kind: type[Reply], answered: Callable[[Reply | None], None]
    ) -> None:
        self._client = client
        self._ask = ask
        self._kind = kind
        self._answered = answered
        self._left = len(client.members)
        self._turn = 0
        self._sent_ns = 0
        self._address = ""
        self._attempt: Attempt | None = None
        self._end: End | None = None

    def begin(self) -> None:
        """Ask the member whose turn it is."""
        client = self._client
        self._address = client.members.current
        idle = client.idle.get(self._address)
        if idle:
            self._opened(idle.pop())
            return
        process = client.process
        self._attempt = process.network.connect(process, self._address, self._opened, self._unreached, _TAG)
        self._wait()

    def _wait(self) -> None:
        self._turn += 1
        self._client.process.later(self._client.members.patience_seconds, self._overdue, self._turn)

    def _overdue(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._client.members.silent(self._address)
        if self._end is None:
            assert self._attempt is not None
            self._attempt.cancel()
            self._unreached("timed out")
        else:
            self._client.process.network.close(self._end, reset=False)
            self._gone("timed out")

    def _unreached(self, _reason: str) -> None:
        self._turn += 1
        self._client.members.failed(self._address)
        self._left -= 1
        if self._left:
            self.begin()
        else:
            self._answered(None)

    def _opened(self, end: End) -> None:
        self._attempt, self._end = None, end
        end.on_data, end.on_closed = self._came, self._gone
        process = self._client.process
        self._sent_ns = process.machine.now_ns()
        process.network.send(end, self._ask)
        self._wait()

    def _gone(self, _reason: str) -> None:
        self._turn += 1
        self._client.members.failed(self._address)
        self._answered(None)

    def _came(self, told: Told) -> None:
        self._turn += 1
        assert self._end is not None
        self._keep_for_others(self._end)
        try:
            reply = self._believed(told)
        except EtcdRefusedError as error:
            self._client.refused(error)
        else:
            self._answered(reply)

    def _believed(self, told: Told) -> Reply | None:
        members = self._client.members
        try:
            if told.status != _OK:
                gateway.raise_failure(told.body, told.status)
            members.answered((self._client.process.machine.now_ns() - self._sent_ns) / 1e9)
            reply = gateway.decoded(told.body, self._kind)
            members.heard(self._address, _header_of(reply))
        except EtcdAwayError:
            members.failed(self._address)
            return None
        except LeaseOverError:
            return None
        return reply

    def _keep_for_others(self, end: End) -> None:
        idle = self._client.idle.setdefault(self._address, [])
        idle.append(end)
        end.on_data = _ignored

        def closed(_reason: str) -> None:
            if end in idle:
                idle.remove(end)

        end.on_closed = closed


class _Watching:
    """A watch that is begun again whenever it ends."""

    def __init__(self, client: EtcdClient, ask: Ask, changed: Callable[[], None]) -> None:
        self._client = client
        self._ask = ask
        self._changed = changed
        self._address = ""
        self._attempt: Attempt | None = None

    def begin(self) -> None:
        """Watch at the member whose turn it is."""
        process = self._client.process
        self._address = self._client.members.current
        self._attempt = process.network.connect(process, self._address, self._opened, self._ended, _TAG)
        process.later(TIMEOUT_SECONDS, self._overdue, self._attempt)

    def _overdue(self, attempt: Attempt) -> None:
        if attempt is self._attempt:
            attempt.cancel()
            self._ended("timed out")

    def _opened(self, end: End) -> None:
        self._attempt = None
        end.on_data, end.on_closed = self._came, self._ended
        self._client.process.network.send(end, self._ask)

    def _came(self, told: Told) -> None:
        if gateway.decoded_part(told.body, Watched).events:
            self._changed()

    def _ended(self, _reason: str) -> None:
        self._attempt = None
        self._client.members.failed(self._address)
        self._client.process.later(_AGAIN_SECONDS, self.begin)


def _header_of(reply: object) -> gateway.Header:
    found = getattr(reply, "header", None) or getattr(getattr(reply, "result", None), "header", None)
    return found if isinstance(found, gateway.Header) else gateway.Header()


def _ignored(_: object) -> None:
    pass
