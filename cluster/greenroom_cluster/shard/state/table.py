"""The replicated state of one shard: sessions, the user index, and the clients' kept answers.

`apply` is a deterministic function of the state and the record: it reads no clock but the record's own time
and decides conditional commands the same way on every replica. It is total: whatever bytes a client sent, it
answers, because a record in the log must be applicable everywhere.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from greenroom import wire
from greenroom.fields import DATA_BYTES_MAX
from greenroom.patching import UnexpectedValueError, patch_data
from greenroom.scan.bounds import Tally
from greenroom.wire import FailureCode
from greenroom_cluster.shard.state.expiry import ExpiryIndex
from greenroom_cluster.shard.state.memory import ANONYMOUS_BYTES, EXPIRY_BYTES, SESSION_BYTES, USER_BYTES
from greenroom_cluster.shard.state.records import (
    KINDS,
    Evict,
    Expire,
    ForgetClients,
    KeptResult,
    Record,
    StoredSession,
    asked,
)
from greenroom_cluster.shard.state.results import ClientTable
from greenroom_cluster.shard.state.stored import (
    Heading,
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
    """Return the version that a session has after this record: rises, and is never used twice.

    It fits a signed 64-bit integer whatever a made-up record says; real epochs do not come near 2**23.
    """
    return (record.epoch << SEQUENCE_BITS | record.sequence) & VERSION_MAX


class SessionTable:
    """Sessions by digest, each encoded (see `stored`): immutable, and replaced as a whole.

    `by_age`: `anonymous` holds those without a user, the oldest first; else it is None, and costs nothing.
    """

    __slots__ = (
        *("_apply", "anonymous", "anonymous_bytes", "clients", "evicted", "expiry", "removed", "sessions"),
        *("stored_bytes", "stored_bytes_max", "users", "walked"),
    )

    def __init__(self, *, by_age: bool = False) -> None:
        self.sessions: dict[bytes, bytes] = {}
        self.clients = ClientTable()
        self.expiry = ExpiryIndex()
        self.stored_bytes = 0
        self.stored_bytes_max = 0
        """What the largest session took that was stored here."""
        self.walked = Tally()
        """Counts, in `items`, what patches read in Python, which takes long."""
        # Sessions that records removed while they lived, or because they were over; for whoever counts. It is
        # this replica's own.
        self.removed = 0
        # Sessions that `Evict` removed, likewise.
        self.evicted = 0
        # A dict and no list: the garbage collector does not look through it, see `expiry`.
        self.anonymous: dict[bytes, None] | None = {} if by_age else None
        self.anonymous_bytes = 0
        self.users = UserIndex(lambda digest: created_of(self.sessions[digest]))
        deciders: dict[type, Callable[[Record, Any], wire.EncodedReply]] = {
            wire.Create: self._create,
            wire.Update: self._update,
            wire.Patch: self._patch,
            wire.Rotate: self._rotate,
            wire.Delete: self._delete,
            wire.DeleteByHandle: self._delete_by_handle,
            wire.DeleteByUser: self._delete_by_user,
            wire.Clean: self._clean,
        }
        # With what `asked` would look up, found in the same look.
        self._apply = {kind: (decide, *KINDS[kind]) for kind, decide in deciders.items()}

    @property
    def charged_bytes(self) -> int:
        """What the sessions are charged with, their places in all indexes included."""
        return (
            self.stored_bytes
            + SESSION_BYTES * len(self.sessions)
            + EXPIRY_BYTES * self.expiry.entries
            + USER_BYTES * self.users.entries
            + (ANONYMOUS_BYTES * len(self.anonymous) if self.anonymous else 0)
        )

    @property
    def evictable_bytes(self) -> int:
        """What evicting all sessions without a user would free."""
        return self.anonymous_bytes + (SESSION_BYTES + ANONYMOUS_BYTES) * len(self.anonymous or ())

    def apply(self, record: Record) -> wire.EncodedReply | None:
        """Apply the record and return the answer to its client; None for the primary's own decisions."""
        command = record.command
        known = self._apply.get(type(command))
        if known is not None:
            decide, kind, of_session = known
            reply = decide(record, command)
            subject = command.digest if of_session else asked(command)[1]  # type: ignore[union-attr,arg-type]  # the others have no place in `_apply`
            kept = KeptResult(record.client, reply.request, reply, kind, subject)
            self.clients.keep(kept, command.low, record.time_us)  # type: ignore[union-attr]  # as above
            return reply
        if isinstance(command, Expire):
            self._expire(record, command)
        elif isinstance(command, ForgetClients):
            self.clients.forget(command.clients, command.silent_since_us)
        elif isinstance(command, Evict):
            self._evict(command)
        return None

    def live(self, digest: bytes, time_us: int) -> wire.SessionState | None:
        """Return the session if it exists and is not over at `time_us`."""
        stored = self.sessions.get(digest)
        if stored is None:
            return None
        session = decoded(stored)
        return session if session.expires_us > time_us else None

    def newest_of(
        self, user_id: str, limit: int, time_us: int, over_max: int
    ) -> tuple[list[wire.SessionHandle], list[bytes]]:
        """Return the user's newest live sessions, at most `limit`, and those met on the way that are over.

        Stops at `over_max` of the latter; the first list is complete only if the second is empty.
        """
        live: list[wire.SessionHandle] = []
        over: list[bytes] = []
        for digest in self.users.newest(user_id):
            if len(live) >= limit or len(over) >= over_max:
                break
            head = heading_of(self.sessions[digest])
            if head.expires_us <= time_us:
                over.append(digest)
                continue
            live.append(
                wire.SessionHandle(
                    head.point, digest, head.version, head.created_us, head.expires_us, head.label
                )
            )
        return live, over

    def due(self, time_us: int, looks: int) -> tuple[list[bytes], int]:
        """Take sessions that are over out of the expiry index; return them and at how many it looked.

        The caller has them removed or enters them again.
        """
        expiry = self.expiry
        if not expiry.renewed and expiry.entries > 2 * len(self.sessions) + STALE_ENTRIES_MAX:
            # Deleted sessions stay in the index until they would have expired, which may be weeks.
            expiry.renew(list(self.sessions))
        renewed = expiry.go_on(time_us, self._expires_us, looks)
        over, looked = expiry.due(time_us, self._expires_us, looks - renewed)
        return over, renewed + looked

    def install(self, sessions: Iterable[StoredSession], time_us: int) -> None:
        """Add sessions that a snapshot of that shard time brought."""
        for session in sessions:
            self._remove(session.digest)
            self._store(session.digest, session.state, time_us)

    def fingerprint(self) -> bytes:
        """Return a digest of the whole replicated state: equal on replicas that have applied the same log."""
        state = blake2b(digest_size=16)
        for digest in sorted(self.sessions):
            state.update(digest)
            state.update(self.sessions[digest])
        # Encoded, because that is equal for what was decided here and what came over the wire.
        for client in sorted(self.clients.states(), key=lambda each: each.client):
            state.update(_encode(client))
        for kept in sorted(self.clients.results(), key=lambda each: (each.client, each.request)):
            state.update(_encode(kept))
        return state.digest()

    # --- commands -------------------------------------------------------------------------------------------

    def _create(self, record: Record, command: wire.Create) -> wire.EncodedReply:
        before = self._state(command.digest)
        if before is not None:
            if before.expires_us > record.time_us:
                return wire.Failed(command.request, FailureCode.EXISTS)
            self._remove(command.digest)
        version = version_of(record)
        state = wire.SessionState(
            version,
            _clamp(command.expires_us, command.absolute_us),
            command.created_us,
            command.absolute_us,
            command.user_id,
            command.label,
            command.point,
            command.data,
        )
        self._store(command.digest, state, record.time_us)
        return wire.Written(command.request, version)

    def _update(self, record: Record, command: wire.Update) -> wire.EncodedReply:
        stored = self.sessions.get(command.digest)
        before = None if stored is None else heading_of(stored)
        if before is None or before.expires_us <= record.time_us:
            return wire.Failed(command.request, FailureCode.NOT_FOUND)
        if command.version is not None and command.version != before.version:
            return wire.Failed(command.request, FailureCode.CONFLICT)
        # As `version_of` tells, without the call.
        version = (record.epoch << SEQUENCE_BITS | record.sequence) & VERSION_MAX
        user_id, expires_us, absolute_us = command.user_id, command.expires_us, before.absolute_us
        if absolute_us is not None and absolute_us < expires_us:
            expires_us = absolute_us
        label, created_us, point = command.label, before.created_us, before.point
        state = (version, expires_us, created_us, absolute_us, user_id, label, point, command.data)
        self._put(command.digest, encoded(state), user_id, expires_us, before, record.time_us)
        return wire.Written(command.request, version)

    def _patch(self, record: Record, command: wire.Patch) -> wire.EncodedReply:
        return self._change(record, command, command.digest, command.expect)

    def _rotate(self, record: Record, command: wire.Rotate) -> wire.EncodedReply:
        if command.new_digest == command.digest:
            return wire.Failed(command.request, FailureCode.INVALID, "a session is rotated to another id")
        if self.live(command.new_digest, record.time_us) is not None:
            return wire.Failed(command.request, FailureCode.EXISTS)
        reply = self._change(record, command, command.new_digest, ())
        if isinstance(reply, wire.EncodedSession):
            self._remove(command.digest)
        return reply

    def _change(
        self,
        record: Record,
        command: wire.Patch | wire.Rotate,
        digest: bytes,
        expect: tuple[wire.PathValue, ...],
    ) -> wire.EncodedReply:
        """Write the patched session under `digest`."""
        request = command.request
        session = self.live(command.digest, record.time_us)
        if session is None:
            return wire.Failed(request, FailureCode.NOT_FOUND)
        data = session.data
        if command.set or command.unset or expect:
            try:
                data = patch_data(data, command.set, command.unset, expect, self.walked)
            except UnexpectedValueError as error:
                return wire.Failed(request, FailureCode.CONFLICT, str(error))
            except ValueError as error:
                return wire.Failed(request, FailureCode.INVALID, str(error))
            if len(data) > DATA_BYTES_MAX:
                return wire.Failed(request, FailureCode.TOO_LARGE, f"{len(data)} bytes")
        expires_us = session.expires_us if command.expires_us is None else command.expires_us
        changed = wire.SessionState(
            version_of(record),
            _clamp(expires_us, session.absolute_us),
            session.created_us,
            session.absolute_us,
            session.user_id if command.user is None else command.user[0],
            session.label,
            session.point,
            data,
        )
        if digest == command.digest:
            stored = encoded(changed)
            self._put(digest, stored, changed.user_id, changed.expires_us, session, record.time_us)
            return reply_with(request, stored)
        self._remove(digest)
        return reply_with(request, self._store(digest, changed, record.time_us))

    def _delete(self, record: Record, command: wire.Delete) -> wire.EncodedReply:
        self._remove(command.digest)
        return wire.Written(command.request, 0)

    def _delete_by_handle(self, record: Record, command: wire.DeleteByHandle) -> wire.EncodedReply:
        stored = self.sessions.get(command.digest)
        session = None if stored is None else heading_of(stored)
        if session is not None and session.user_id == command.user_id:
            self.removed += session.expires_us > record.time_us
            self._remove(command.digest)
        return wire.Written(command.request, 0)

    def _delete_by_user(self, record: Record, command: wire.DeleteByUser) -> wire.EncodedReply:
        removed = command.removed or 0
        for digest in tuple(self.users.oldest(command.user_id)):
            if digest != command.keep:
                removed += expiry_of(self.sessions[digest]) > record.time_us
                self._remove(digest)
        return wire.Counted(command.request, ((0, removed),))

    def _clean(self, record: Record, command: wire.Clean) -> wire.EncodedReply:
        if command.removed is not None:
            return wire.Counted(command.request, ((0, command.removed),))
        # Not by the expiry index, which is each replica's own: the count is part of the replicated state.
        over = [digest for digest, stored in self.sessions.items() if expiry_of(stored) <= record.time_us]
        for digest in over:
            self._remove(digest)
        return wire.Counted(command.request, ((0, len(over)),))

    def _expire(self, record: Record, command: Expire) -> None:
        for digest in command.digests:
            expires_us = self._expires_us(digest)
            if expires_us is None:
                continue
            if expires_us <= record.time_us:
                self.removed += 1
                self._remove(digest)
            else:
                self.expiry.enter(digest, expires_us, record.time_us)

    def _evict(self, command: Evict) -> None:
        # Whether or not this replica keeps the order of age: what is logged is applied alike.
        for digest in command.digests:
            stored = self.sessions.get(digest)
            if stored is not None and heading_of(stored).user_id is None:
                self.evicted += 1
                self._remove(digest)

    # --- storage --------------------------------------------------------------------------------------------

    def _state(self, digest: bytes) -> wire.SessionState | None:
        stored = self.sessions.get(digest)
        return None if stored is None else decoded(stored)

    def _expires_us(self, digest: bytes) -> int | None:
        stored = self.sessions.get(digest)
        return None if stored is None else expiry_of(stored)

    def _store(self, digest: bytes, session: wire.SessionState, time_us: int) -> bytes:
        """Store a session where there is none; return it as it is stored."""
        stored = encoded(session)
        self._put(digest, stored, session.user_id, session.expires_us, None, time_us)
        return stored

    def _put(
        self,
        digest: bytes,
        stored: bytes,
        user_id: str | None,
        expires_us: int,
        before: wire.SessionState | Heading | None,
        time_us: int,
    ) -> None:
        """Store a session in the place of `before`, created at the same time."""
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
                self.anonymous_bytes += more
        if expires_us < before.expires_us:
            self.expiry.enter(digest, expires_us, time_us)

    def _enter(self, user_id: str | None, digest: bytes, size: int) -> None:
        if user_id is not None:
            self.users.add(user_id, digest)
        elif self.anonymous is not None:
            self.anonymous[digest] = None
            self.anonymous_bytes += size

    def _leave(self, user_id: str | None, digest: bytes, size: int) -> None:
        if user_id is not None:
            self.users.remove(user_id, digest)
        elif self.anonymous is not None:
            del self.anonymous[digest]
            self.anonymous_bytes -= size

    def _remove(self, digest: bytes) -> None:
        stored = self.sessions.get(digest)
        if stored is None:
            return
        self._leave(heading_of(stored).user_id, digest, len(stored))
        del self.sessions[digest]
        self.stored_bytes -= len(stored)


def _clamp(expires_us: int, absolute_us: int | None) -> int:
    return expires_us if absolute_us is None or expires_us < absolute_us else absolute_us
