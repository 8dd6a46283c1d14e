"""What each command does to a table of sessions.

`MemoryStore`, `SqliteStore`, the shards of a cluster and the tests' fake cluster keep their sessions in
different ways, but decide alike, because all of them decide here. A `CommandTable` takes a command of the
wire, the time, and the version that a changed session gets; it returns the reply. It reads no clock and draws
no numbers: two tables that are given the same commands hold the same sessions.

The rules that no single method shows:

- A session is over at its `expires_us`, not after it. From then on it is like one that never was, whether or
  not its table has removed it yet. It never ends later than its `absolute_us`, whatever a command says.
- A user's sessions are ordered by creation, then by digest: an order that no change of a session disturbs.
- The digest alone names a session. A point says which table to ask, and decides nothing in there.

Session data stays encoded; only a patch opens it (`greenroom.patching`).
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from greenroom import wire
from greenroom.fields import DATA_BYTES_MAX
from greenroom.ids import is_listed_as, listed_as
from greenroom.patching import UnexpectedValueError, patch_data
from greenroom.scan.bounds import Tally
from greenroom.wire import FailureCode

UNBOUNDED = 1 << 62

Shown = TypeVar("Shown")
"""How a table replies with a session."""

Decider: TypeAlias = Callable[[Any, int, int], Shown | wire.Written | wire.Failed | wire.Counted]
"""What decides one kind of command, given the command, the time and a version."""

State: TypeAlias = tuple[int, int, int, int | None, str | None, str, int, bytes]
"""The fields of a `wire.SessionState`, in their order. A tuple takes less time to make."""


class CommandTable(ABC, Generic[Shown]):
    """Decides what commands do. Subclasses keep the sessions.

    The outcome of a patch is measured here; what `create` and `update` bring was measured before. `walked`
    counts, in `items`, what patches read in Python, which takes long. `removed` counts the sessions that were
    removed by handle while they lived, and what a subclass adds. Where `gone` is a list, subclasses that are
    watched add to it what they remove.
    """

    __slots__ = ("gone", "removed", "walked")

    def __init__(self) -> None:
        self.walked = Tally()
        self.removed = 0
        self.gone: list[bytes] | None = None

    def deciders(self) -> dict[type, Decider[Shown]]:
        """Return the method for each kind of command."""
        return {
            wire.Create: self.create,
            wire.Update: self.update,
            wire.Patch: self.patch,
            wire.Rotate: self.rotate,
            wire.Delete: self.delete,
            wire.DeleteByHandle: self.delete_by_handle,
            wire.DeleteByUser: self.delete_by_user,
            wire.Clean: self.clean,
        }

    # --- single sessions ------------------------------------------------------------------------------------

    def live(self, digest: bytes, time_us: int) -> wire.SessionState | None:
        """Return the session if there is one that is not over."""
        state = self._state(digest)
        return state if state is not None and state.expires_us > time_us else None

    def create(self, command: wire.Create, time_us: int, version: int) -> wire.Written | wire.Failed:
        """Store a new session unless a live one has its digest."""
        before = self._heading(command.digest)
        if before is not None:
            if before.expires_us > time_us:
                return wire.Failed(command.request_id, FailureCode.EXISTS)
            self._remove(command.digest)
        user_id, absolute_us = command.user_id, command.absolute_us
        expires_us = _clamp(command.expires_us, absolute_us)
        created_us, label, point = command.created_us, command.label, command.point
        state = (version, expires_us, created_us, absolute_us, user_id, label, point, command.data)
        self._put(command.digest, state, user_id, expires_us, None, time_us)
        return wire.Written(command.request_id, version)

    def update(self, command: wire.Update, time_us: int, version: int) -> wire.Written | wire.Failed:
        """Replace what may change of a live session, on condition of its version if the command names one."""
        before = self._heading(command.digest)
        if before is None or before.expires_us <= time_us:
            return wire.Failed(command.request_id, FailureCode.NOT_FOUND)
        if command.version is not None and command.version != before.version:
            return wire.Failed(command.request_id, FailureCode.CONFLICT)
        user_id, expires_us, absolute_us = command.user_id, command.expires_us, before.absolute_us
        # As `_clamp` does, without the call: this is the most frequent command.
        if absolute_us is not None and absolute_us < expires_us:
            expires_us = absolute_us
        label, created_us, point = command.label, before.created_us, before.point
        state = (version, expires_us, created_us, absolute_us, user_id, label, point, command.data)
        self._put(command.digest, state, user_id, expires_us, before, time_us)
        return wire.Written(command.request_id, version)

    def patch(self, command: wire.Patch, time_us: int, version: int) -> Shown | wire.Failed:
        """Change paths of a live session's data, its user and its lifetime."""
        return self._change(command, command.digest, command.expect, time_us, version)

    def rotate(self, command: wire.Rotate, time_us: int, version: int) -> Shown | wire.Failed:
        """Give a live session a new digest, changed as by a patch."""
        if command.new_digest == command.digest:
            return wire.Failed(command.request_id, FailureCode.INVALID, "a session is rotated to another id")
        if self.live(command.new_digest, time_us) is not None:
            return wire.Failed(command.request_id, FailureCode.EXISTS)
        return self._change(command, command.new_digest, (), time_us, version)

    def _change(
        self,
        command: wire.Patch | wire.Rotate,
        digest: bytes,
        expect: tuple[wire.PathValue, ...],
        time_us: int,
        version: int,
    ) -> Shown | wire.Failed:
        """Put the changed session under `digest`; a refusal leaves it as it was."""
        request_id = command.request_id
        before = self.live(command.digest, time_us)
        if before is None:
            return wire.Failed(request_id, FailureCode.NOT_FOUND)
        data = before.data
        if command.set or command.unset or expect:
            try:
                data = patch_data(data, command.set, command.unset, expect, self.walked)
            except UnexpectedValueError as error:
                return wire.Failed(request_id, FailureCode.CONFLICT, str(error))
            except ValueError as error:
                return wire.Failed(request_id, FailureCode.INVALID, str(error))
            if len(data) > DATA_BYTES_MAX:
                return wire.Failed(request_id, FailureCode.TOO_LARGE, f"{len(data)} bytes")
        user_id = before.user_id if command.user is None else command.user[0]
        created_us, absolute_us = before.created_us, before.absolute_us
        expires_us = before.expires_us if command.expires_us is None else command.expires_us
        expires_us = _clamp(expires_us, absolute_us)
        state = (version, expires_us, created_us, absolute_us, user_id, before.label, before.point, data)
        if digest == command.digest:
            self._put(digest, state, user_id, expires_us, before, time_us)
        else:
            self._remove(digest)  # one that is over may still be there
            self._put(digest, state, user_id, expires_us, None, time_us)
            self._remove(command.digest)
        return self._shown(request_id, digest)

    def delete(self, command: wire.Delete, _time_us: int, _version: int) -> wire.Written:
        """Remove a session. That there is none is fine."""
        self._remove(command.digest)
        return wire.Written(command.request_id, 0)

    # --- by user --------------------------------------------------------------------------------------------

    def newest_of(
        self, user_id: str, limit: int, time_us: int, over_max: int = UNBOUNDED
    ) -> tuple[list[wire.SessionHandle], list[bytes]]:
        """Return the user's newest live sessions, at most `limit`, and those met on the way that are over.

        Stops at `over_max` of the latter; the first list is complete only if the second is empty.
        """
        live: list[wire.SessionHandle] = []
        over: list[bytes] = []
        for digest in self._newest(user_id):
            if len(live) >= limit or len(over) >= over_max:
                break
            head = self._heading(digest)
            if head is None or head.expires_us <= time_us:
                over.append(digest)
                continue
            live.append(
                wire.SessionHandle(
                    head.point, listed_as(digest), head.version, head.created_us, head.expires_us, head.label
                )
            )
        return live, over

    def digest_listed_as(self, user_id: str, listed: bytes, looks: int = UNBOUNDED) -> bytes:
        """Return the digest of the user's session that lists name so, or what was given if there is none.

        Looks at the newest, at most `looks`.
        """
        for digest in islice(self._newest(user_id), looks):
            if is_listed_as(digest, listed):
                return digest
        return listed

    def delete_by_handle(self, command: wire.DeleteByHandle, time_us: int, _version: int) -> wire.Written:
        """Remove the user's session that lists name so."""
        self._delete_of(command.user_id, self.digest_listed_as(command.user_id, command.digest), time_us)
        return wire.Written(command.request_id, 0)

    def _delete_of(self, user_id: str, digest: bytes, time_us: int) -> None:
        """Remove a session if it is this user's."""
        session = self._heading(digest)
        if session is not None and session.user_id == user_id:
            self.removed += session.expires_us > time_us
            self._remove(digest)

    def delete_by_user(self, command: wire.DeleteByUser, time_us: int, _version: int) -> wire.Counted:
        """Remove the user's sessions but for `keep`; count those that lived, under shard 0."""
        removed = command.removed or 0
        for digest in tuple(self._oldest(command.user_id)):
            if digest != command.keep:
                session = self._heading(digest)
                removed += session is not None and session.expires_us > time_us
                self._remove(digest)
        return wire.Counted(command.request_id, ((0, removed),))

    def clean(self, command: wire.Clean, time_us: int, _version: int) -> wire.Counted:
        """Remove what is over and count it, under shard 0, unless that was done and counted before."""
        if command.removed is not None:
            return wire.Counted(command.request_id, ((0, command.removed),))
        over = self._over(time_us)
        for digest in over:
            self._remove(digest)
        return wire.Counted(command.request_id, ((0, len(over)),))

    # --- what a subclass keeps ------------------------------------------------------------------------------

    @abstractmethod
    def _state(self, digest: bytes) -> wire.SessionState | None:
        """Return a session, over or not."""

    @abstractmethod
    def _heading(self, digest: bytes) -> wire.SessionHeading | None:
        """Return a session without its data, over or not."""

    @abstractmethod
    def _put(
        self,
        digest: bytes,
        state: State,
        user_id: str | None,
        expires_us: int,
        before: wire.SessionHeading | None,
        time_us: int,
    ) -> None:
        """Store a session in the place of `before`, which was created at the same time; None: of nothing.

        `user_id` and `expires_us` are those of the state.
        """

    @abstractmethod
    def _remove(self, digest: bytes) -> None:
        """Remove a session if it is there."""

    @abstractmethod
    def _shown(self, request_id: int, digest: bytes) -> Shown:
        """Return the reply that shows a session that is there."""

    @abstractmethod
    def _newest(self, user_id: str) -> Iterable[bytes]:
        """Return the digests of the user's sessions, the newest first."""

    @abstractmethod
    def _oldest(self, user_id: str) -> Iterable[bytes]:
        """Return the same, the oldest first."""

    @abstractmethod
    def _over(self, time_us: int) -> list[bytes]:
        """Return the digests of all sessions that are over."""


class StateTable(CommandTable[wire.Session]):
    """Keeps sessions as states in dicts, for one process. `collect` finds what is over, a few at a time."""

    __slots__ = ("sessions", "users")

    def __init__(self) -> None:
        super().__init__()
        self.sessions: OrderedDict[bytes, wire.SessionState] = OrderedDict()
        """In the order in which `collect` looks at them."""
        self.users: dict[str, set[bytes]] = {}

    def collect(self, time_us: int, looks: int) -> None:
        """Look at those that were not looked at for longest, at most so many, and remove what is over."""
        sessions = self.sessions
        for _ in range(min(looks, len(sessions))):
            digest = next(iter(sessions))
            if sessions[digest].expires_us <= time_us:
                self._remove(digest)
            else:
                sessions.move_to_end(digest)

    def _state(self, digest: bytes) -> wire.SessionState | None:
        return self.sessions.get(digest)

    def _heading(self, digest: bytes) -> wire.SessionState | None:
        return self.sessions.get(digest)

    def _put(
        self,
        digest: bytes,
        state: State,
        user_id: str | None,
        expires_us: int,
        before: wire.SessionHeading | None,
        time_us: int,
    ) -> None:
        if before is None:
            self._enter(user_id, digest)
        elif user_id != before.user_id:
            self._leave(before.user_id, digest)
            self._enter(user_id, digest)
        self.sessions[digest] = wire.SessionState(*state)

    def _remove(self, digest: bytes) -> None:
        state = self.sessions.pop(digest, None)
        if state is not None:
            self._leave(state.user_id, digest)
            if self.gone is not None:
                self.gone.append(digest)

    def _enter(self, user_id: str | None, digest: bytes) -> None:
        if user_id is not None:
            self.users.setdefault(user_id, set()).add(digest)

    def _leave(self, user_id: str | None, digest: bytes) -> None:
        if user_id is not None:
            digests = self.users[user_id]
            digests.discard(digest)
            if not digests:
                del self.users[user_id]

    def _shown(self, request_id: int, digest: bytes) -> wire.Session:
        return wire.Session(request_id, self.sessions[digest])

    def _newest(self, user_id: str) -> list[bytes]:
        return self._oldest(user_id)[::-1]

    def _oldest(self, user_id: str) -> list[bytes]:
        sessions = self.sessions
        return sorted(self.users.get(user_id, ()), key=lambda digest: (sessions[digest].created_us, digest))

    def _over(self, time_us: int) -> list[bytes]:
        return [digest for digest, state in self.sessions.items() if state.expires_us <= time_us]


def _clamp(expires_us: int, absolute_us: int | None) -> int:
    return expires_us if absolute_us is None or expires_us < absolute_us else absolute_us
