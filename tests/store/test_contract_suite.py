"""The contract suite finds stores that break the contract: each of these breaks it in one way."""

import pickle
from collections.abc import Iterator
from functools import cache
from types import coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import MemoryStore, SessionData, SessionNotFoundError, new_session_id
from greenroom.testing import CHECKS, ManualClock, run_check

SECONDS = 5.0


@coroutine
def yield_to_asyncio() -> Iterator[None]:
    yield


class Resurrecting(MemoryStore):
    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        try:
            return await super().update(session_id, session, version=version)
        except SessionNotFoundError:
            return await self.create(session)


class IgnoringVersions(MemoryStore):
    async def get(self, session_id: str) -> SessionData | None:
        found = await super().get(session_id)
        await yield_to_asyncio()
        return found

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return await super().update(session_id, session)


class ReusingVersions(MemoryStore):
    async def create(self, session: SessionData) -> int:
        await super().create(session)
        digest, record = self._table.sessions.popitem()
        self._table.sessions[digest] = replace(record, version=1)
        return 1


class LosingPatches(MemoryStore):
    async def patch(self, session_id: str, **arguments: Any) -> SessionData:
        before = await self.get(session_id)
        await yield_to_asyncio()
        if before is not None and await self.get(session_id) is not None:
            await self.update(session_id, before)
        return await super().patch(session_id, **arguments)


class Sharing(MemoryStore):
    """Keeps the caller's objects."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.shared: dict[str, dict[Any, Any]] = {}

    async def create(self, session: SessionData) -> int:
        version = await super().create(session)
        self.shared[session.session_id] = session.data
        return version

    async def get(self, session_id: str) -> SessionData | None:
        found = await super().get(session_id)
        if found is not None and session_id in self.shared:
            found.data = self.shared[session_id]
        return found


class Everlasting(MemoryStore):
    def _now(self) -> int:
        return 0


class KeepingOldIds(MemoryStore):
    async def rotate(self, session_id: str, **arguments: Any) -> SessionData:
        before = await self.get(session_id)
        after = await super().rotate(session_id, **arguments)
        if before is not None:
            await self.create(before)
        return after


class MovingRotatedSessions(MemoryStore):
    async def rotate(self, session_id: str, **arguments: Any) -> SessionData:
        after = await super().rotate(session_id, **arguments)
        await self.delete(after.session_id)
        after.session_id = new_session_id()
        after.version = await self.create(after)
        return after


class ForgettingUserChanges(MemoryStore):
    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        listed = await self.list_by_user(user_id, limit=3)
        for info in listed:
            await self.delete_by_handle(user_id, info.handle)
        return len(listed)


class TrustingHandles(MemoryStore):
    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        for owner in tuple(self._users):
            await super().delete_by_handle(owner, handle)


class Showing(MemoryStore):
    async def get(self, session_id: str) -> SessionData | None:
        if len(session_id) > 256:
            raise ValueError(session_id)
        return await super().get(session_id)


class Pickling(MemoryStore):
    async def create(self, session: SessionData) -> int:
        return await super().create(_pickled(session))

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return await super().update(session_id, _pickled(session), version=version)


def _pickled(session: SessionData) -> SessionData:
    return replace(session, data={"pickled": pickle.dumps(session.data)})


class Boasting(MemoryStore):
    features = MemoryStore.features - {"rotate"}


@cache
def outcomes(make: type[MemoryStore], library: str = "asyncio") -> set[str]:
    """The names of the checks that this store fails; some that it breaks would wait for ever."""
    failed = set()
    for check in CHECKS:
        clock = ManualClock()
        try:
            run_check(
                check,
                lambda clock=clock: make(clock=clock),
                library=library,
                clock=lambda clock=clock: clock,
                seconds=SECONDS,
            )
        except Exception:  # noqa: BLE001  a broken store may raise anything
            failed.add(check.name)
    return failed


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (Resurrecting, "update_after_delete_does_not_resurrect"),
        (IgnoringVersions, "stale_update_conflicts"),
        (IgnoringVersions, "one_of_concurrent_updates_wins"),
        (ReusingVersions, "old_version_never_matches_a_new_session"),
        (LosingPatches, "concurrent_patches_all_survive"),
        (Sharing, "nothing_mutable_is_shared"),
        (Everlasting, "expired_session_is_gone"),
        (Everlasting, "absolute_deadline_ends_a_session"),
        (KeepingOldIds, "rotated_id_stays_dead"),
        (MovingRotatedSessions, "rotate_moves_the_session"),
        (ForgettingUserChanges, "delete_by_user_is_exact"),
        (ForgettingUserChanges, "delete_by_user_keeps_one"),
        (TrustingHandles, "delete_by_handle"),
        (Showing, "impossible_ids_name_no_session"),
        (Pickling, "values_keep_their_types"),
        (Boasting, "features_tell_the_truth"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_broken_store_is_caught(broken: type[MemoryStore], caught_by: str) -> None:
    assert caught_by in outcomes(broken)


def test_names_of_checks_are_distinct() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_every_feature_is_checked() -> None:
    assert frozenset().union(*(check.features for check in CHECKS)) == MemoryStore.features
