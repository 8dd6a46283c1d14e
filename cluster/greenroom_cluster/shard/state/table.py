"""The replicated state of one shard: sessions, the user index, and the clients' kept replies.

`apply` is a deterministic function of the state and the record: its only clock is the record's own time, and
it decides conditional commands the same way on every replica. It is total: it replies whatever bytes a client
sent, because a record in the log must be applicable everywhere. `greenroom.table` decides what a client's
command does, for replicas as for every other store; this module is about how a replica keeps sessions.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom.ids import DIGEST_BYTES
from greenroom.table import CommandTable, State
from greenroom_cluster.shard.state.ages import AgeOrder
from greenroom_cluster.shard.state.expiry import ExpiryIndex
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.memory import (
    ANONYMOUS_BYTES,
    EXPIRY_BYTES,
    NAMED_BYTES,
    SESSION_BYTES,
    USER_BYTES,
)
from greenroom_cluster.shard.state.namespaces import Usage, bare, namespace_of, owner_of
from greenroom_cluster.shard.state.records import (
    KINDS,
    EncodedSession,
    Evict,
    Expire,
    ForgetClients,
    KeptReply,
    Record,
    StoredSession,
    Within,
    asked,
)
from greenroom_cluster.shard.state.stored import (
    created_of,
    decoded,
    encoded,
    expiry_of,
    heading_of,
    reply_with,
)
from greenroom_cluster.shard.state.users import UserIndex

SEQUENCE_BITS = 40
VERSION_MAX = (1 << 63) - 1
STALE_ENTRIES_MAX = 4096

_encode = msgspec.msgpack.Encoder().encode


def version_of(record: Record) -> int:
    """Return the version of a session that this record writes: its epoch and sequence number.

    It rises, and is never used twice. It fits a signed 64-bit integer, whatever a forged record says; real
    epochs stay below 2**23.
    """
    return (record.epoch << SEQUENCE_BITS | record.sequence) & VERSION_MAX


class SessionTable(CommandTable[wire.EncodedSession]):
    """Sessions by digest, each encoded (see `stored`): immutable, and replaced as a whole.

    With `by_age`, `anonymous` holds those without a user in the order of age; without, it is None and costs
    nothing. `removed` counts sessions that were removed one by one, alive or expired; `evicted` those removed
    by `Evict`. Both counts are this replica's own.
    """

    __slots__ = (
        *("_apply", "_cleaned", "anonymous", "clients", "evicted", "expiry", "sessions"),
        *("stored_bytes", "stored_bytes_max", "usage", "users"),
    )

    def __init__(self, *, by_age: bool = False) -> None:
        super().__init__()
        self.sessions: dict[bytes, bytes] = {}
        self.clients = ClientTable()
        self.expiry = ExpiryIndex()
        self.stored_bytes = 0
        self.stored_bytes_max = 0
        """The size of the largest session that was stored here."""
        self.evicted = 0
        self.usage = Usage()
        # The namespace in which `clean` looks.
        self._cleaned = ""
        self.anonymous = AgeOrder() if by_age else None
        self.users = UserIndex(lambda digest: created_of(self.sessions[digest]))
        # Together with what `asked` would look up, to save a second look-up.
        self._apply = {kind: (decide, *KINDS[kind]) for kind, decide in self.deciders().items()}

    @property
    def charged_bytes(self) -> int:
        """What the sessions are charged, including their index entries."""
        return (
            self.stored_bytes
            + SESSION_BYTES * len(self.sessions)
            + EXPIRY_BYTES * self.expiry.entries
            + USER_BYTES * self.users.entries
            + NAMED_BYTES * self.usage.sessions
            + (ANONYMOUS_BYTES * len(self.anonymous) if self.anonymous else 0)
        )

    @property
    def settled_bytes(self) -> int:
        """What the sessions, and the kept replies, are charged as they are now."""
        return self.charged_bytes + self.clients.charged_bytes

    @property
    def evictable_bytes(self) -> int:
        """How much evicting all sessions without a user would free."""
        nobodys = self.anonymous
        if nobodys is None:
            return 0
        return nobodys.stored_bytes + (SESSION_BYTES + ANONYMOUS_BYTES) * nobodys.entries

    def used_by(self, namespace: str) -> tuple[int, int]:
        """Return how many sessions a namespace has, and how many bytes they take as they are stored."""
        usage = self.usage
        if namespace:
            return usage.of(namespace)
        return len(self.sessions) - usage.sessions, self.stored_bytes - usage.stored_bytes

    def apply(self, record: Record, by_keys: Any = None) -> wire.EncodedReply | None:
        """Apply the record and return the reply to its client; None for the primary's own decisions.

        `by_keys` is the bare command, if the caller has it already.
        """
        command = record.command
        known = self._apply.get(type(command))
        if known is not None:
            decide, kind, of_session = known
            version = version_of(record)
            reply = decide(command, record.time_us, version)
            subject = command.digest if of_session else asked(command)[1]  # type: ignore[union-attr,arg-type]  # the others have no place in `_apply`
            kept = KeptReply(record.client, reply.request_id, reply, kind, subject)
            self.clients.keep(kept, command.low, record.time_us)  # type: ignore[union-attr]  # as above
            return reply
        if isinstance(command, Expire):
            self._expire(record, command)
        elif isinstance(command, ForgetClients):
            self.clients.forget(command.clients, command.silent_since_us)
        elif isinstance(command, Evict):
            self._evict(command)
        elif isinstance(command, Within):
            return self._apply_within(record, command.namespace, by_keys or bare(command))
        return None

    def _apply_within(self, record: Record, namespace: str, command: Any) -> wire.EncodedReply:
        """Apply a command of a namespace: by keys, with which it reaches nothing of another."""
        decide, kind, of_session = self._apply[type(command)]
        version = version_of(record)
        sessions, stored_bytes = len(self.sessions), self.stored_bytes
        self._cleaned = namespace
        reply = decide(command, record.time_us, version)
        self._cleaned = ""
        if self.stored_bytes != stored_bytes or len(self.sessions) != sessions:
            self.usage.add(namespace, len(self.sessions) - sessions, self.stored_bytes - stored_bytes)
        subject = command.digest if of_session else asked(command)[1]
        kept = KeptReply(record.client, reply.request_id, reply, kind, subject)
        self.clients.keep(kept, command.low, record.time_us)
        return reply

    def due(self, time_us: int, looks: int) -> tuple[list[bytes], int]:
        """Take expired sessions out of the expiry index; return them, and the number of looks.

        The caller has them removed, or enters them again.
        """
        expiry = self.expiry
        if not expiry.renewed and expiry.entries > 2 * len(self.sessions) + STALE_ENTRIES_MAX:
            # Deleted sessions stay in the index until they would have expired, perhaps for weeks.
            expiry.renew(list(self.sessions))
        renewed = expiry.go_on(time_us, self._expires_us, looks)
        over, looked = expiry.due(time_us, self._expires_us, looks - renewed)
        return over, renewed + looked

    def install(self, sessions: Iterable[StoredSession], time_us: int) -> None:
        """Add the sessions of a snapshot taken at that shard time."""
        for session in sessions:
            self._remove(session.digest)
            self._store(session.digest, session.state, time_us)
            if len(session.digest) > DIGEST_BYTES:
                self._count_one(session.digest, 1)

    def restore(self, sessions: Sequence[EncodedSession], time_us: int) -> None:
        """Add sessions of a snapshot on a disk, taken at that shard time: in bulk, for there may be many.

        Raises InvariantError if one of them is there already.
        """
        kept = self.sessions
        digests = [session.digest for session in sessions]
        stored = [bytes(session.state) for session in sessions]
        headings = [heading_of(each) for each in stored]
        count = len(kept) + len(digests)
        kept.update(zip(digests, stored, strict=True))
        if len(kept) != count:
            raise InvariantError("a snapshot on disk holds a session twice")
        sizes = [len(each) for each in stored]
        self.stored_bytes += sum(sizes)
        self.stored_bytes_max = max(self.stored_bytes_max, *sizes, 0)
        self.expiry.enter_all(digests, [heading.expires_us for heading in headings], time_us)
        users = [heading.user_id for heading in headings]
        if self.anonymous is not None or users.count(None) < len(users):
            for digest, user_id, size in zip(digests, users, sizes, strict=True):
                self._enter(user_id, digest, size)
        if sum(map(len, digests)) > DIGEST_BYTES * len(digests):
            for digest in digests:
                if len(digest) > DIGEST_BYTES:
                    self._count_one(digest, 1)

    def fingerprint(self) -> bytes:
        """Return a digest of the whole replicated state, equal on replicas that have applied the same log."""
        state = blake2b(digest_size=16)
        for digest in sorted(self.sessions):
            state.update(digest)
            state.update(self.sessions[digest])
        # Encoded, because then it is equal whether it was decided here or came over the wire.
        for client in sorted(self.clients.states(), key=lambda each: each.client):
            state.update(_encode(client))
        for kept in sorted(self.clients.replies(), key=lambda each: (each.client, each.request_id)):
            state.update(_encode(kept))
        return state.digest()

    def delete_by_handle(self, command: wire.DeleteByHandle, time_us: int, _version: int) -> wire.Written:
        """Remove a session, named by its digest as in logs, if it is this user's."""
        self._delete_of(command.user_id, command.digest, time_us)
        return wire.Written(command.request_id, 0)

    # --- the primary's own decisions ------------------------------------------------------------------------

    def _expire(self, record: Record, command: Expire) -> None:
        for digest in command.digests:
            expires_us = self._expires_us(digest)
            if expires_us is None:
                continue
            if expires_us <= record.time_us:
                self.removed += 1
                self._remove_counted(digest)
            else:
                self.expiry.enter(digest, expires_us, record.time_us)

    def _evict(self, command: Evict) -> None:
        # Applied even if this replica does not keep the order of age: all replicas apply the same.
        for digest in command.digests:
            stored = self.sessions.get(digest)
            if stored is not None and heading_of(stored).user_id is None:
                self.evicted += 1
                self._remove_counted(digest)

    def _remove_counted(self, key: bytes) -> None:
        """Remove a session of any namespace."""
        if len(key) > DIGEST_BYTES:
            self._count_one(key, -1)
        self._remove(key)

    def _count_one(self, key: bytes, sign: int) -> None:
        """Count a session that is there in its namespace, or no longer."""
        self.usage.add(namespace_of(key), sign, sign * len(self.sessions[key]))

    # --- storage --------------------------------------------------------------------------------------------

    def _state(self, digest: bytes) -> wire.SessionState | None:
        stored = self.sessions.get(digest)
        return None if stored is None else decoded(stored)

    def _heading(self, digest: bytes) -> wire.SessionHeading | None:
        stored = self.sessions.get(digest)
        return None if stored is None else heading_of(stored)

    def _expires_us(self, digest: bytes) -> int | None:
        stored = self.sessions.get(digest)
        return None if stored is None else expiry_of(stored)

    def _shown(self, request_id: int, digest: bytes) -> wire.EncodedSession:
        return reply_with(request_id, self.sessions[digest])

    def _newest(self, user_id: str) -> Iterator[bytes]:
        return self.users.newest(user_id)

    def _oldest(self, user_id: str) -> Iterator[bytes]:
        return self.users.oldest(user_id)

    def _over(self, time_us: int) -> list[bytes]:
        # Not by the expiry index, which differs between replicas: the count is part of the replicated state.
        cleaned = self._cleaned.encode()
        return [
            key
            for key, stored in self.sessions.items()
            if expiry_of(stored) <= time_us and key[DIGEST_BYTES:] == cleaned
        ]

    def _store(self, digest: bytes, session: wire.SessionState, time_us: int) -> None:
        """Store a session where there is none."""
        self._put(digest, session, session.user_id, session.expires_us, None, time_us)

    def _put(
        self,
        digest: bytes,
        state: State | wire.SessionState,
        user_id: str | None,
        expires_us: int,
        before: wire.SessionHeading | None,
        time_us: int,
    ) -> None:
        stored = encoded(state)
        size = len(stored)
        if size > self.stored_bytes_max:
            self.stored_bytes_max = size
        if before is None:
            self.stored_bytes += size
            self.sessions[digest] = stored
            self.expiry.enter(digest, expires_us, time_us)
            self._enter(user_id, digest, size)
            return
        more = size - len(self.sessions[digest])
        self.stored_bytes += more
        if user_id != before.user_id:
            self._leave(before.user_id, digest, size - more)
            self.sessions[digest] = stored
            self._enter(user_id, digest, size)
        else:
            self.sessions[digest] = stored
            if self.anonymous is not None and user_id is None:
                self.anonymous.grow(digest, more)
        if expires_us < before.expires_us:
            self.expiry.enter(digest, expires_us, time_us)

    def _enter(self, user_id: str | None, digest: bytes, size: int) -> None:
        if user_id is not None:
            self.users.add(user_id if len(digest) == DIGEST_BYTES else owner_of(digest, user_id), digest)
        elif self.anonymous is not None:
            self.anonymous.enter(digest, size)

    def _leave(self, user_id: str | None, digest: bytes, size: int) -> None:
        if user_id is not None:
            self.users.remove(user_id if len(digest) == DIGEST_BYTES else owner_of(digest, user_id), digest)
        elif self.anonymous is not None:
            self.anonymous.leave(digest, size)

    def _remove(self, digest: bytes) -> None:
        stored = self.sessions.get(digest)
        if stored is None:
            return
        self._leave(heading_of(stored).user_id, digest, len(stored))
        del self.sessions[digest]
        self.stored_bytes -= len(stored)
        if self.gone is not None:
            self.gone.append(digest)
