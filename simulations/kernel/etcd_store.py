"""What a simulated etcd holds: keys with revisions, and leases. It speaks JSON as the gateway does."""

from collections.abc import Callable

import msgspec

_SECOND = 1_000_000_000
TTL_SECONDS_MIN = 2
CLUSTER_ID = 7


# --- what is asked ----------------------------------------------------------------------------------------


class _Compare(msgspec.Struct, frozen=True):
    key: bytes
    target: str
    create_revision: int = 0
    mod_revision: int = 0


class _Range(msgspec.Struct, frozen=True):
    key: bytes
    range_end: bytes = b""


class _Put(msgspec.Struct, frozen=True):
    key: bytes
    value: bytes
    lease: int = 0


class _Operation(msgspec.Struct, frozen=True):
    request_range: _Range | None = None
    request_put: _Put | None = None
    request_delete_range: _Range | None = None


class Transaction(msgspec.Struct, frozen=True):
    """The body of a transaction."""

    compare: tuple[_Compare, ...] = ()
    success: tuple[_Operation, ...] = ()
    failure: tuple[_Operation, ...] = ()


class LeaseRequest(msgspec.Struct, frozen=True, rename={"lease": "ID", "ttl_seconds": "TTL"}):
    """The body of what concerns a lease."""

    lease: int = 0
    ttl_seconds: int = 0


class _Watched(msgspec.Struct, frozen=True):
    key: bytes


class WatchRequest(msgspec.Struct, frozen=True):
    """The body that begins a watch of one key."""

    create_request: _Watched


decode_transaction = msgspec.json.Decoder(Transaction).decode
decode_lease = msgspec.json.Decoder(LeaseRequest).decode
decode_watch = msgspec.json.Decoder(WatchRequest).decode


# --- what is answered: zero, false and empty are left out --------------------------------------------------


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who answers, and when."""

    cluster_id: int = 0
    revision: int = 0
    raft_term: int = 0


class KeyValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key and its revisions."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0


class _Ranged(msgspec.Struct, frozen=True, omit_defaults=True):
    header: Header = Header()
    kvs: tuple[KeyValue, ...] = ()


class _Result(msgspec.Struct, frozen=True, omit_defaults=True):
    response_range: _Ranged | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply to a transaction."""

    header: Header = Header()
    succeeded: bool = False
    responses: tuple[_Result, ...] = ()


class LeaseAnswer(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"lease": "ID", "ttl_seconds": "TTL"}
):
    """The reply about a lease."""

    header: Header = Header()
    lease: int = 0
    ttl_seconds: int = 0


class LeaseGoneError(Exception):
    """A key is to go with a lease that is over."""


class EtcdStore:
    """All that etcd holds. `on_change(key)` is called with each key that was written or removed.

    Times are those of the clock of the member that leads. A lease is over at its time, and its keys go with
    the next `expire`.
    """

    def __init__(self) -> None:
        self.revision = 1
        self.term = 2
        self.keys: dict[bytes, KeyValue] = {}
        self.leases: dict[int, tuple[int, int]] = {}
        self.on_change: Callable[[bytes], None] = lambda _: None
        self._last_lease = 100

    def header(self) -> Header:
        """Return what each reply begins with."""
        return Header(CLUSTER_ID, self.revision, self.term)

    # --- keys --------------------------------------------------------------------------------------------

    def transact(self, asked: Transaction) -> Answer:
        """Do a transaction, whole. Raises LeaseGoneError."""
        held = all(self._holds(each) for each in asked.compare)
        operations = asked.success if held else asked.failure
        puts = [each.request_put for each in operations if each.request_put is not None]
        if any(put.lease and put.lease not in self.leases for put in puts):
            raise LeaseGoneError
        if any(each.request_range is None for each in operations):
            self.revision += 1
        return Answer(self.header(), held, tuple(self._do(each) for each in operations))

    def _holds(self, compare: _Compare) -> bool:
        found = self.keys.get(compare.key, KeyValue())
        if compare.target == "CREATE":
            return found.create_revision == compare.create_revision
        return found.mod_revision == compare.mod_revision

    def _do(self, operation: _Operation) -> _Result:
        if operation.request_range is not None:
            found = tuple(self.keys[key] for key in self._matching(operation.request_range))
            return _Result(_Ranged(self.header(), found))
        if operation.request_put is not None:
            put = operation.request_put
            created = self.keys[put.key].create_revision if put.key in self.keys else self.revision
            self.keys[put.key] = KeyValue(put.key, put.value, created, self.revision, put.lease)
            self.on_change(put.key)
        elif operation.request_delete_range is not None:
            for key in self._matching(operation.request_delete_range):
                self._remove(key)
        return _Result()

    def _matching(self, wanted: _Range) -> list[bytes]:
        if not wanted.range_end:
            return [wanted.key] if wanted.key in self.keys else []
        return sorted(key for key in self.keys if wanted.key <= key < wanted.range_end)

    def _remove(self, key: bytes) -> None:
        del self.keys[key]
        self.on_change(key)

    # --- leases ------------------------------------------------------------------------------------------

    def grant(self, now_ns: int, ttl_seconds: int) -> LeaseAnswer:
        """Give a lease, for longer than was asked for if that is too short."""
        self._last_lease += 1
        seconds = max(TTL_SECONDS_MIN, ttl_seconds)
        self.leases[self._last_lease] = (seconds, now_ns + seconds * _SECOND)
        return LeaseAnswer(self.header(), self._last_lease, seconds)

    def keep_alive(self, now_ns: int, lease: int) -> LeaseAnswer:
        """Renew a lease; one that is over stays so, though its keys may be there yet."""
        seconds, until_ns = self.leases.get(lease, (0, 0))
        if now_ns >= until_ns:
            return LeaseAnswer(self.header(), lease)
        self.leases[lease] = (seconds, now_ns + seconds * _SECOND)
        return LeaseAnswer(self.header(), lease, seconds)

    def revoke(self, lease: int) -> None:
        """End a lease, and remove its keys."""
        if self.leases.pop(lease, None) is None:
            return
        for key in [key for key, held in self.keys.items() if held.lease == lease]:
            self.revision += 1
            self._remove(key)

    def expire(self, now_ns: int) -> None:
        """End the leases whose time is over."""
        for lease, (_, until_ns) in list(self.leases.items()):
            if now_ns >= until_ns:
                self.revoke(lease)

    def elect(self, now_ns: int) -> None:
        """Have another member lead, by whose clock each lease begins anew."""
        self.term += 1
        self.leases = {
            lease: (seconds, now_ns + seconds * _SECOND) for lease, (seconds, _) in self.leases.items()
        }
