"""Who of several coordinators leads, and what a leader writes: at most one decides, whatever the clocks say.

Pure: `step` takes the time and what has happened, and returns what to do. Each request names its number, and
its answer does too; an answer to a request that is no longer awaited is dropped.

A coordinator leads once it has made the leader's key, which goes with its lease. The revision at which the
key was created is its fence: every transaction compares it, so that whoever has lost the key writes nothing,
and compares the revisions of all keys that it changes. The lease's time on the own clock, counted from before
it was asked for, only says when to stop serving; nothing that is written rests on it.

A transaction without an answer may have been applied, or be applied later. So it is sent again as it is until
the outcome is known: it cannot be applied twice, and meanwhile nothing else is decided.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.errors import InvariantError
from greenroom_cluster.coordination.etcd.gateway import (
    Compare,
    Delete,
    KeyValue,
    Operation,
    Put,
    Range,
    Transacted,
    end_of,
)
from greenroom_cluster.coordination.etcd.layout import LayoutError, map_of, marks_of, places, values_of

TTL_SECONDS = 2
"""The shortest lease that etcd gives with its default election timeout."""
LOOK_NS = 500_000_000
"""A standby looks so often whether somebody leads, besides watching."""
RETRY_NS = 200_000_000
"""A request without an answer is repeated so long after the last time: at once, if it has waited longer."""
UNREADABLE_NS = 10_000_000_000
"""Who finds what is no map of this release leaves the lead to others for so long, which may be newer. Who
finds a leader's key that no coordinator made looks again so much later.
"""

_encode = msgspec.msgpack.Encoder().encode


# --- what has happened ------------------------------------------------------------------------------------


class Input(msgspec.Struct, frozen=True):
    """Base of every input; `number` is that of the request which it answers."""

    number: int


class Leased(Input, frozen=True):
    """A lease was given or renewed for so long; 0 seconds: it is over."""

    lease: int
    ttl_seconds: int


class Answered(Input, frozen=True):
    """A transaction was answered."""

    answer: Transacted


class Failed(Input, frozen=True):
    """A request has no answer; it may have been carried out all the same."""


class Changed(msgspec.Struct, frozen=True):
    """The leader's key has changed, or the watch that would tell it has ended."""


LeadershipInput: TypeAlias = Leased | Answered | Failed | Changed


# --- what to do -------------------------------------------------------------------------------------------


class Grant(msgspec.Struct, frozen=True):
    """Ask for a lease, and pass on what comes of it."""

    number: int
    ttl_seconds: int


class Renew(msgspec.Struct, frozen=True):
    """Renew a lease, and pass on what comes of it."""

    number: int
    lease: int


class Transact(msgspec.Struct, frozen=True):
    """Do a transaction, and pass on what comes of it."""

    number: int
    compares: tuple[Compare, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


class Revoke(msgspec.Struct, frozen=True):
    """End a lease, as far as that can be done; nobody waits for it."""

    lease: int


class Lead(msgspec.Struct, frozen=True):
    """Begin to serve with this map and these marks; None: no map was ever kept."""

    map: ClusterMap | None
    marks: dict[bytes, int]


class Saved(msgspec.Struct, frozen=True):
    """What was to be saved is there for good."""


class Resign(msgspec.Struct, frozen=True):
    """Stop serving at once, without a reply to anything undecided. `away`: because etcd does not answer."""

    reason: str
    away: bool = False


LeadershipEffect: TypeAlias = Grant | Renew | Transact | Revoke | Lead | Saved | Resign

_Phase = Literal["standby", "looking", "granting", "racing", "loading", "leading"]


class _Write(msgspec.Struct):
    """What is being written: sent again as it is until its outcome is known."""

    transaction: Transact
    values: dict[bytes, bytes]
    removed: tuple[bytes, ...]
    proof: tuple[bytes, bytes]
    """A key and the value it has if this was applied."""


class Leadership:
    """One coordinator's part. `prefix` is where everything lies, `name` who we are to the others.

    Call `step` when something has happened and at `next_deadline()`; `save` and `save_marks` only while
    leading, one after the other.
    """

    def __init__(self, prefix: str, name: str, now_ns: int, ttl_seconds: int = TTL_SECONDS) -> None:
        self._leader, self._marks, self._maps = places(prefix)
        self._name = name
        self._ttl_seconds = ttl_seconds
        self._phase: _Phase = "standby"
        self._due_ns = now_ns
        self._number = 0
        self._awaited = 0
        self._asked_ns = now_ns
        self.leader = ""
        """The name of whoever leads, as far as it is known."""
        self._lease = 0
        self._left = 0
        self._fence = 0
        self._yields_until_ns = now_ns
        self._renewing = 0
        self._renewed_ns = self._valid_ns = now_ns
        self._held: dict[bytes, tuple[bytes, int]] = {}
        self._write: _Write | None = None

    @property
    def leads(self) -> bool:
        """Whether this coordinator serves."""
        return self._phase == "leading"

    @property
    def leader_key(self) -> bytes:
        """The key to watch: what it holds is who leads."""
        return self._leader

    def next_deadline(self) -> int:
        """Return when `step` is due even if nothing happens, in nanoseconds of its clock."""
        if self._phase == "leading":
            renew = NEVER_NS if self._renewing else self._renewed_ns + self._third_ns
            return min(renew, self._valid_ns, self._due_ns)
        return self._due_ns

    def step(self, now_ns: int, happened: LeadershipInput | None = None) -> list[LeadershipEffect]:
        """Take in what has happened, if anything, and do what is due."""
        effects: list[LeadershipEffect] = []
        if self._phase == "leading" and now_ns >= self._valid_ns:
            # First: after a pause, an answer that had waited would else be acted upon.
            effects += self._resign(now_ns, "etcd has not renewed its lease in time", away=True)
        if happened is not None:
            effects += self._take(now_ns, happened)
        return effects + self._do_due(now_ns)

    def end(self, now_ns: int) -> list[Revoke]:
        """Take part no longer: whoever stands by need not wait for the end of a lease."""
        return [each for each in self._stand_by(now_ns, NEVER_NS) if isinstance(each, Revoke)]

    def give_up(self, now_ns: int, reason: str, yield_ns: int) -> list[LeadershipEffect]:
        """Lead no longer, nor again within `yield_ns`: others may."""
        self._yields_until_ns = now_ns + yield_ns
        return self._resign(now_ns, reason)

    # --- what is due -------------------------------------------------------------------------------------

    @property
    def _third_ns(self) -> int:
        return self._ttl_seconds * 1_000_000_000 // 3

    def _do_due(self, now_ns: int) -> list[LeadershipEffect]:
        if self._phase == "leading":
            return self._stay(now_ns)
        if now_ns < self._due_ns or self._phase != "standby":
            return []
        self._phase = "looking"
        return [self._transaction(now_ns, (), (Range(self._leader),))]

    def _stay(self, now_ns: int) -> list[LeadershipEffect]:
        effects: list[LeadershipEffect] = []
        if not self._renewing and now_ns >= self._renewed_ns + self._third_ns:
            self._renewing, self._renewed_ns = self._next(), now_ns
            effects.append(Renew(self._renewing, self._lease))
        if self._write is not None and now_ns >= self._due_ns:
            # It has no outcome yet: the same again.
            self._due_ns, self._asked_ns = NEVER_NS, now_ns
            again = msgspec.structs.replace(self._write.transaction, number=self._next())
            self._awaited = again.number
            effects.append(again)
        return effects

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _transaction(
        self,
        now_ns: int,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> Transact:
        self._awaited, self._asked_ns, self._due_ns = self._next(), now_ns, NEVER_NS
        return Transact(self._awaited, tuple(compares), tuple(success), tuple(failure))

    # --- what has happened -------------------------------------------------------------------------------

    def _take(self, now_ns: int, happened: LeadershipInput) -> list[LeadershipEffect]:
        if isinstance(happened, Changed):
            if self._phase == "standby":
                self._due_ns = now_ns
            return []
        if happened.number == self._renewing:
            return self._renewal(now_ns, happened)
        if happened.number != self._awaited:
            return []
        self._awaited = 0
        if isinstance(happened, Failed):
            return self._failed(now_ns)
        match self._phase, happened:
            case "looking", Answered(answer=answer):
                return self._looked(now_ns, answer)
            case "granting", Leased():
                return self._granted(now_ns, happened)
            case "racing", Answered(answer=answer):
                return self._raced(now_ns, answer)
            case "loading", Answered(answer=answer):
                return self._loaded(now_ns, answer)
            case "leading", Answered(answer=answer):
                return self._wrote(now_ns, answer)
        raise InvariantError(f"{type(happened).__name__} while {self._phase}")

    def _failed(self, now_ns: int) -> list[LeadershipEffect]:
        again_ns = max(now_ns, self._asked_ns + RETRY_NS)
        if self._phase == "leading":
            self._due_ns = again_ns
            return []
        # A race without an answer may be won: its lease must not keep others from leading.
        return self._stand_by(now_ns, again_ns - now_ns)

    def _stand_by(self, now_ns: int, wait_ns: int) -> list[LeadershipEffect]:
        lease, self._lease, self._fence = self._lease, 0, 0
        self._left = lease or self._left
        self._phase, self._awaited, self._renewing = "standby", 0, 0
        self._held, self._write = {}, None
        self._due_ns = min(now_ns + wait_ns, NEVER_NS)
        return [Revoke(lease)] if lease else []

    def _resign(self, now_ns: int, reason: str, *, away: bool = False) -> list[LeadershipEffect]:
        return [Resign(reason, away), *self._stand_by(now_ns, RETRY_NS)]

    def _looked(self, now_ns: int, answer: Transacted) -> list[LeadershipEffect]:
        found = answer.responses[0].response_range.kvs
        if found:
            self.leader = found[0].value.decode(errors="replace")
            if 0 < self._left == found[0].lease:
                # Nobody leads: what was to end it has not arrived, as while etcd had no leader itself, and
                # whoever leads etcd next has begun the lease anew.
                return [*self._stand_by(now_ns, RETRY_NS), Revoke(self._left)]
            if not found[0].lease:
                return [Resign(self._stranger()), *self._stand_by(now_ns, UNREADABLE_NS)]
            return self._stand_by(now_ns, LOOK_NS)
        if now_ns < self._yields_until_ns:
            return self._stand_by(now_ns, min(LOOK_NS, self._yields_until_ns - now_ns))
        self._phase, self._awaited, self._asked_ns = "granting", self._next(), now_ns
        self._due_ns = NEVER_NS
        return [Grant(self._awaited, self._ttl_seconds)]

    def _stranger(self) -> str:
        """Say that a key is in the way that goes with no lease, so nothing but somebody's hand removes it."""
        key = self._leader.decode()
        return f"nobody can lead, for no coordinator has made the key {key} in etcd as it is now: remove it"

    def _granted(self, now_ns: int, granted: Leased) -> list[LeadershipEffect]:
        self._lease, self._phase = granted.lease, "racing"
        self._renewed_ns = self._asked_ns
        self._valid_ns = self._asked_ns + granted.ttl_seconds * 1_000_000_000
        key = Put(self._leader, self._name.encode(), self._lease)
        free = Compare(self._leader, "CREATE", 0)
        return [self._transaction(now_ns, (free,), (key,), (Range(self._leader),))]

    def _raced(self, now_ns: int, answer: Transacted) -> list[LeadershipEffect]:
        if not answer.succeeded:
            return self._stand_by(now_ns, LOOK_NS)
        self._fence, self._phase, self.leader = answer.header.revision, "loading", self._name
        ours = Compare(self._leader, "CREATE", self._fence)
        everything = (Range(self._maps, end_of(self._maps)), Range(self._marks))
        return [self._transaction(now_ns, (ours,), everything)]

    def _loaded(self, now_ns: int, answer: Transacted) -> list[LeadershipEffect]:
        if not answer.succeeded or now_ns >= self._valid_ns:
            return self._stand_by(now_ns, RETRY_NS)
        keys, marks = (each.response_range.kvs for each in answer.responses)
        self._held = {each.key: (each.value, each.mod_revision) for each in (*keys, *marks)}
        self._phase, self._due_ns = "leading", NEVER_NS
        values = {each.key.removeprefix(self._maps).decode(errors="replace"): each.value for each in keys}
        try:
            return [Lead(map_of(values), marks_of(marks[0].value) if marks else {})]
        except LayoutError as error:
            return self.give_up(now_ns, str(error), UNREADABLE_NS)

    def _renewal(self, now_ns: int, happened: Leased | Answered | Failed) -> list[LeadershipEffect]:
        self._renewing = 0
        if isinstance(happened, Leased):
            if not happened.ttl_seconds:
                return self._resign(now_ns, "its lease in etcd is over")
            self._valid_ns = self._renewed_ns + happened.ttl_seconds * 1_000_000_000
        else:
            # Sooner than usual: two thirds of the lease are left at most.
            self._renewed_ns = max(now_ns, self._renewed_ns + RETRY_NS) - self._third_ns
        return []

    # --- what a leader writes ----------------------------------------------------------------------------

    def save(self, now_ns: int, cluster_map: ClusterMap) -> list[LeadershipEffect]:
        """Write a map in one transaction; `Saved` follows once it is there for good, else `Resign`."""
        values = {self._maps + key.encode(): value for key, value in values_of(cluster_map).items()}
        known = {key for key in self._held if key.startswith(self._maps)}
        changed = {key: value for key, value in values.items() if self._held.get(key, (b"", 0))[0] != value}
        return self._begin_write(now_ns, changed, tuple(sorted(known - values.keys())), self._maps + b"meta")

    def save_marks(self, now_ns: int, marks: Mapping[bytes, int]) -> list[LeadershipEffect]:
        """Write the marks of directories, as `save` does a map."""
        return self._begin_write(now_ns, {self._marks: _encode(dict(marks))}, (), self._marks)

    def _begin_write(
        self, now_ns: int, values: dict[bytes, bytes], removed: tuple[bytes, ...], proof: bytes
    ) -> list[LeadershipEffect]:
        if self._phase != "leading" or self._write is not None:
            raise InvariantError("only a leader writes, and one thing at a time")
        if not values and not removed:
            return [Saved()]
        if proof not in values:
            raise InvariantError("a change that does not show in its version cannot be told from none")
        compares = [Compare(self._leader, "CREATE", self._fence)]
        compares += [Compare(key, "MOD", self._held.get(key, (b"", 0))[1]) for key in (*values, *removed)]
        operations: list[Operation] = [Put(key, value) for key, value in values.items()]
        operations += [Delete(key) for key in removed]
        transaction = self._transaction(now_ns, compares, operations, (Range(self._leader), Range(proof)))
        self._write = _Write(transaction, values, removed, (proof, values[proof]))
        return [transaction]

    def _wrote(self, now_ns: int, answer: Transacted) -> list[LeadershipEffect]:
        write = self._write
        if write is None:
            raise InvariantError("an answer to a transaction that is not awaited")
        revision = answer.header.revision
        if not answer.succeeded:
            leader, proof = (_only(each.response_range.kvs) for each in answer.responses)
            if leader is None or leader.create_revision != self._fence:
                return self._resign(now_ns, "another coordinator leads")
            if proof is None or (proof.key, proof.value) != write.proof:
                return self._resign(now_ns, "somebody else has written to its keys in etcd")
            # It had been applied, and its answer was lost. All its keys have the revision of one of them.
            revision = proof.mod_revision
        self._held |= {key: (value, revision) for key, value in write.values.items()}
        for key in write.removed:
            self._held.pop(key, None)
        self._write = None
        return [Saved()]


def _only(found: Sequence[KeyValue]) -> KeyValue | None:
    return found[0] if found else None
