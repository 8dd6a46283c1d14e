"""The store that keeps sessions in a Greenroom cluster.

It checks and encodes the arguments, passes requests to the runner of the running event loop, and turns
replies into sessions and errors. It connects at the first operation. Session ids stay here: the cluster sees
digests.
"""

import os
import weakref
from collections.abc import Iterable, Mapping
from datetime import datetime
from random import SystemRandom
from typing import Any, ClassVar, NoReturn

from greenroom import wire
from greenroom.addresses import parse_addresses
from greenroom.codec import encode_within_limit
from greenroom.dialog import Dialog, DialogSettings, operations
from greenroom.dialog.near import NearCache, NearCounts, total
from greenroom.drivers import boot_clock
from greenroom.drivers.registry import Registry, let_go
from greenroom.endings import UNKNOWN, NoWatch, Tell, Watch
from greenroom.errors import RemoteProtocolError, StoreFullError, UsageError
from greenroom.fanout import count_of, newest_first
from greenroom.fields import (
    DATA_BYTES_MAX,
    MICROS_MAX,
    MICROS_MIN,
    UNCHANGED,
    Unchanged,
    check_limit,
    check_version,
    checked_label,
    checked_present_user_id,
    checked_user_id,
    micros_of,
)
from greenroom.ids import digest_of, locate, locate_if_possible, new_session_id, parse_handle
from greenroom.loopback import INSECURE_OPTION, REASON, SAFE_PLAINTEXT, surely_beyond
from greenroom.options import CALLS, CLUSTER_STORE
from greenroom.patching import Changes, PathLike, encode_changes
from greenroom.replies import failure, session_info, stored_session, user_change
from greenroom.sessions import (
    ALL_FEATURES,
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
)
from greenroom.store_security import secrets_of, security_of


class ClusterStore(BaseSessionStore):
    """Sessions in a cluster, reached through the addresses of some of its nodes.

    `nodes` is `"host:port,host:port"`: any nodes will do, more than one so that one may be down. `cluster` is
    the cluster's name. With `tls_cert`, `tls_key` and `tls_ca`, paths of PEM files, or with `token_file` and
    `tls_ca`, only TLS is spoken; without them nothing beyond loopback is connected to, unless
    `insecure_plaintext_beyond_loopback`. On loopback both sides prove that they know the secret of
    `secret_file`, or of the file that the nodes of the same user have made; nodes that do not are not spoken
    to, unless `loopback_proof` is "accept" or "off". `zone` is the one in which the app runs: the cluster map
    is followed at a node there and at one elsewhere. An operation answers within `deadline_seconds`,
    including retries and failovers, or raises UnavailableError (not applied) or OutcomeUnknownError (perhaps
    applied). At most `operations_max` operations of one event loop are in flight. Of sessions that are read
    again, up to `near_sessions` are kept in each event loop and read without asking, with `near_eager` from
    the first read on; see `near`. The endings of up to `watches_max` sessions are watched in each event loop.
    Raises UsageError for invalid options.

    Works under asyncio and trio, with and without `async with`, in several loops and threads, across forks.
    After `aclose` the next operation connects again.
    """

    features: ClassVar[frozenset[str]] = ALL_FEATURES

    def __init__(
        self,
        nodes: str,
        *,
        cluster: str = "greenroom",
        deadline_seconds: float = 5.0,
        operations_max: int = 10_000,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_deny: str | os.PathLike[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        insecure_plaintext_beyond_loopback: bool = False,
        secret_file: str | os.PathLike[str] | None = None,
        loopback_proof: str = "require",
        zone: str | None = None,
        near_sessions: int = 0,
        near_eager: bool = False,
        watches_max: int = 20_000,
    ) -> None:
        checked = CLUSTER_STORE.checked
        settings = DialogSettings(
            seeds=parse_addresses(nodes),
            cluster=checked("cluster", cluster),
            deadline_seconds=float(checked("deadline_seconds", deadline_seconds)),
            operations_max=checked("operations_max", operations_max),
            zone=checked("zone", zone) or "",
            near_sessions=checked("near_sessions", near_sessions),
            near_eager=checked("near_eager", near_eager),
            watches_max=checked("watches_max", watches_max),
        )
        if settings.near_eager and not settings.near_sessions:
            raise UsageError("near_eager keeps nothing without near_sessions, how many sessions to keep")
        self._settings = settings
        self.contention_seconds = settings.deadline_seconds
        given = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_ca": tls_ca, "tls_deny": tls_deny}
        files = {name: checked(name, path) for name, path in {**given, "token_file": token_file}.items()}
        security = self._security = security_of(settings.cluster, files)
        insecure = checked(INSECURE_OPTION, insecure_plaintext_beyond_loopback)
        loopback_only = security is None and not insecure
        if loopback_only and (beyond := surely_beyond(settings.seeds)):
            raise UsageError(f"{', '.join(beyond)}: {REASON}. {SAFE_PLAINTEXT}")
        file, mode = checked("secret_file", secret_file), checked("loopback_proof", loopback_proof)
        secrets = None if security is not None else secrets_of(settings.cluster, file, mode)
        self._registry = Registry(
            lambda: Dialog(os.urandom, settings, SystemRandom(), _near_cache(settings)),
            security,
            secrets,
            loopback_only=loopback_only,
        )
        self._finalizer = weakref.finalize(self, let_go, self._registry)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._settings.cluster!r} at {','.join(self._settings.seeds)}>"

    async def check(self, *, every_shard: bool = False) -> None:
        """Check whether sessions can be read: reach a node and, by its map, the primary of some shard.

        With `every_shard`, reach the primaries of all shards: for a step of a deployment, not for a load
        balancer, since one actor that is away would take every app out of it. Waits for shards that start or
        fail over. Raises UsageError if the listeners at the nodes' addresses are not this cluster, and
        UnavailableError at the deadline, saying what is missing.
        """
        CALLS.check(every_shard=every_shard)
        runner = self._registry.current()
        request = wire.ListByUser(runner.dialog.next_id(), "", 1, ())
        kind = operations.CHECK_EVERY_SHARD if every_shard else operations.CHECK
        await runner.gather(request, kind)

    def reload_tls(self) -> bool:
        """Read the files of TLS now, as at a SIGHUP; return False if they cannot be used, as the log says.

        Changed files are read by themselves within 10 s, so this only makes sure. No signal handler is
        installed: `loop.add_signal_handler(signal.SIGHUP, store.reload_tls)` is the app's to call. Raises
        UsageError if the store has no TLS.
        """
        if self._security is None:
            raise UsageError("this store has no tls_cert= or token_file=, so there is nothing to reload")
        return self._security.reload()

    def near(self) -> NearCounts:
        """Return what the near caches of this process have done, all zero if `near_sessions` is."""
        caches = [runner.dialog.near for runner in self._registry.all()]
        return total([each.counts for each in caches if each is not None])

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """Have `tell` called when the session has ended; see `BaseSessionStore.watch`.

        Raises TooManyWatchesError if that would be more than `watches_max`.
        """
        place = locate_if_possible(session_id)
        if place is None:
            tell(UNKNOWN)
            return NoWatch()
        return self._registry.current().watch(*place, tell)

    async def aclose(self) -> None:
        """Close the connections of this event loop now, and those of others soon. Harmless to repeat."""
        own = self._registry.current_if_any()
        for runner in self._registry.take_all():
            if runner is own:
                await runner.aclose()
            elif runner.over:
                runner.discard()
            else:
                runner.dismiss()

    # --- the five ----------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """Store a new session and return its version.

        Raises SessionExistsError if a live session has this id.
        """
        point, digest = locate(session.session_id)
        created = micros_of(session.created, "created")
        absolute = None
        expires = micros_of(session.expires, "expires")
        if session.absolute_expires is not None:
            absolute = micros_of(session.absolute_expires, "absolute_expires")
            expires = min(expires, absolute)
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        data = encode_within_limit(session.data)
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Create(
            dialog.next_id(),
            dialog.low,
            0,
            point,
            digest,
            user_id,
            created,
            expires,
            absolute,
            label,
            data,
        )
        return version_of(await runner.perform(request, operations.CREATE))

    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""
        # Not by `get_stored`: one more coroutine for each read is a twentieth of what it costs here.
        place = locate_if_possible(session_id)
        if place is None:
            return None
        runner = self._registry.current()
        if runner.dialog.near is not None and (kept := runner.hit(*place)) is not None:
            return _stored(session_id, kept).session()
        request = wire.Get(runner.dialog.next_id(), *place)
        reply = await runner.perform(request, operations.GET)
        return _stored(session_id, reply).session() if type(reply) is wire.Session else None

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.get_stored`."""
        place = locate_if_possible(session_id)
        if place is None:
            return None
        runner = self._registry.current()
        if runner.dialog.near is not None and (kept := runner.hit(*place)) is not None:
            return _stored(session_id, kept)
        request = wire.Get(runner.dialog.next_id(), *place)
        reply = await runner.perform(request, operations.GET)
        return _stored(session_id, reply) if type(reply) is wire.Session else None

    def at_hand(self, session_id: str) -> StoredSession | None:
        """Return the session if it is kept here and may be shown; see `near_sessions`."""
        if not self._settings.near_sessions or (place := locate_if_possible(session_id)) is None:
            return None
        kept = self._registry.current().hit(*place, looks_again=True)  # `get_stored` does, after a miss
        return None if kept is None else _stored(session_id, kept)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """Replace user, lifetime, label and data of a stored session; return its new version.

        Never creates the session again if it is missing: that is how a logout would be undone.
        Raises SessionNotFoundError, and VersionConflictError if `version` is given and stale.
        """
        place = locate_if_possible(session_id)
        if session.session_id != session_id:
            raise UsageError("update cannot change a session's id; use rotate")
        expires = micros_of(session.expires, "expires")
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        check_version(version)
        data = encode_within_limit(session.data)
        if place is None:
            raise not_found()
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Update(
            dialog.next_id(),
            dialog.low,
            0,
            *place,
            user_id,
            expires,
            label,
            data,
            version,
        )
        kind = operations.UPDATE if version is None else operations.UPDATE_IF
        return version_of(await runner.perform(request, kind))

    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""
        place = locate_if_possible(session_id)
        if place is None:
            return
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Delete(dialog.next_id(), dialog.low, 0, *place)
        version_of(await runner.perform(request, operations.DELETE))

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were. Never needed for correctness."""
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Clean(dialog.next_id(), dialog.low, 0, ())
        return count_of(await runner.gather(request, operations.CLEAN))

    # --- in one step instead of the defaults -------------------------------------------------------------

    async def patch(
        self,
        session_id: str,
        *,
        set: Mapping[PathLike, Any] | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: Mapping[PathLike, Any] | None = None,
        user_id: str | Unchanged | None = UNCHANGED,
        expires: datetime | None = None,
    ) -> SessionData:
        """Change single paths of the data (and user or lifetime); see `BaseSessionStore.patch`."""
        changes = encode_changes(set, unset, expect)
        return (await self._patched(session_id, changes, user_id, expires)).session()

    async def patch_stored(
        self,
        session_id: str,
        *,
        set: Mapping[PathLike, Any] | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: Mapping[PathLike, Any] | None = None,
        expires: datetime | None = None,
    ) -> StoredSession:
        """Change single paths of the data; see `BaseSessionStore.patch_stored`."""
        return await self._patched(session_id, encode_changes(set, unset, expect), UNCHANGED, expires)

    async def _patched(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> StoredSession:
        place = locate_if_possible(session_id)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if place is None:
            raise not_found()
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Patch(
            dialog.next_id(),
            dialog.low,
            0,
            *place,
            changes.set,
            changes.unset,
            changes.expect,
            user,
            expires_us,
        )
        kind = operations.PATCH_IF if changes.expect else operations.PATCH
        return _stored(session_id, await runner.perform(request, kind))

    async def rotate(
        self,
        session_id: str,
        *,
        user_id: str | Unchanged | None = UNCHANGED,
        set: Mapping[PathLike, Any] | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expires: datetime | None = None,
    ) -> SessionData:
        """Give the session a new id and kill the old one; see `BaseSessionStore.rotate`."""
        place = locate_if_possible(session_id)
        changes = encode_changes(set, unset)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if place is None:
            raise not_found()
        point, digest = place
        new_id = new_session_id(point)
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Rotate(
            dialog.next_id(),
            dialog.low,
            0,
            point,
            digest,
            digest_of(new_id),
            changes.set,
            changes.unset,
            user,
            expires_us,
        )
        return _stored(new_id, await runner.perform(request, operations.ROTATE)).session()

    # --- by user -----------------------------------------------------------------------------------------

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit`, the newest first. No ids: handles."""
        user_id = checked_present_user_id(user_id)
        check_limit(limit)
        runner = self._registry.current()
        request = wire.ListByUser(runner.dialog.next_id(), user_id, limit, ())
        reply = await runner.gather(request, operations.LIST_BY_USER)
        return [session_info(user_id, each) for each in newest_first(reply.sessions, limit)]

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        user_id = checked_present_user_id(user_id)
        point, listed = parse_handle(handle)
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.DeleteByHandle(dialog.next_id(), dialog.low, 0, point, listed, user_id)
        version_of(await runner.perform(request, operations.DELETE_BY_HANDLE))

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended.

        Raises OutcomeUnknownError if not every shard has confirmed it in time; repeat it then.
        """
        user_id = checked_present_user_id(user_id)
        kept = b"" if keep is None else digest_of(keep)
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.DeleteByUser(dialog.next_id(), dialog.low, 0, user_id, kept, ())
        return count_of(await runner.gather(request, operations.DELETE_BY_USER))


def _near_cache(settings: DialogSettings) -> NearCache | None:
    """Return what one dialog keeps; None if nothing, as where no clock runs on through a suspension."""
    clock = boot_clock()
    if not settings.near_sessions or clock is None:
        return None
    return NearCache(settings.near_sessions, clock, eager=settings.near_eager)


def _stored(session_id: str, reply: wire.Session | wire.Failed) -> StoredSession:
    if isinstance(reply, wire.Failed):
        _raise_failed(reply)
    state = reply.state
    if not (
        MICROS_MIN <= state.created_us <= MICROS_MAX
        and MICROS_MIN <= state.expires_us <= MICROS_MAX
        and (state.absolute_us is None or MICROS_MIN <= state.absolute_us <= MICROS_MAX)
    ):
        raise RemoteProtocolError("the cluster sent a time that no datetime can hold")
    return stored_session(session_id, state)


def version_of(reply: wire.Written | wire.Failed) -> int:
    """Return the version that was written. Raises what the store does for a refusal."""
    if isinstance(reply, wire.Failed):
        _raise_failed(reply)
    return reply.version


def _raise_failed(reply: wire.Failed) -> NoReturn:
    error = failure(reply)
    if error is not None:
        raise error
    match reply.code:
        case wire.FailureCode.TOO_LARGE:
            raise UsageError(
                f"the session's data would be over the cluster's limit of {DATA_BYTES_MAX} bytes"
                f"{_told(reply)}; keep large values elsewhere and only their keys in the session"
            )
        case wire.FailureCode.INVALID:
            raise UsageError(f"the cluster refused the request as invalid{_told(reply)}")
        case wire.FailureCode.FULL:
            raise StoreFullError(f"nothing was written, there is no room for it: {reply.detail}")
        case _:
            raise RemoteProtocolError(
                f"the cluster refused with code {reply.code}{_told(reply)}, which this version of greenroom "
                "does not know; upgrade it"
            )


def _told(reply: wire.Failed) -> str:
    return f" ({reply.detail})" if reply.detail else ""
