"""Random series of operations on a store, compared step by step with a model. Needs hypothesis.

>>> class MyMachine(StoreMachine):
...     library = "trio"
...
...     def make_store(self):
...         return MyStore("localhost:6379")
>>> TestMyMachine = MyMachine.TestCase
>>> TestMyMachine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)

`make_store` is called once for every series, inside the event loop, which stays open for the whole series. If
it sets `self.clock` to a `ManualClock` that the store follows, time passes in the series as well. The store
may hold other sessions: ids and users are the machine's own, and are deleted at the end.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenroom.errors import (
    PathThroughListError,
    SessionExistsError,
    SessionNotFoundError,
    VersionConflictError,
)
from greenroom.fields import utc_now
from greenroom.ids import new_session_id, point_of
from greenroom.sessions import ABSENT, UNCHANGED, BaseSessionStore, SessionData, SessionInfo
from greenroom.testing.contract.model import Expected, Path, apart, patched, same_value, value_at
from greenroom.testing.contract.portals import open_portal
from greenroom.testing.contract.stage import ManualClock, raises

Result = TypeVar("Result")

SLOTS = 4
MONTH_SECONDS = 30 * 86400

slots = st.integers(0, SLOTS - 1)
users = st.sampled_from(["ann", "bob", None])
named_users = st.sampled_from(["ann", "bob"])
lifetimes = st.sampled_from([10, 100, MONTH_SECONDS])
keys = st.sampled_from(["a", "b", 1])
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.text("xü", max_size=2) | st.just(2**70)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
data_dicts = st.dictionaries(keys, values, max_size=3)
paths = st.lists(keys, min_size=1, max_size=3).map(tuple)
path_values = st.dictionaries(paths, values, max_size=3).map(apart)
path_lists = st.lists(paths, max_size=2)


class StoreMachine(RuleBasedStateMachine):
    """Inherit from this and write `make_store`; see the module."""

    library: str = "asyncio"
    clock: ManualClock | None = None

    def make_store(self) -> BaseSessionStore:
        """Return the store to compare with the model."""
        raise TypeError(f"{type(self).__name__} must define make_store, which returns the store to check")

    def __init__(self) -> None:
        super().__init__()
        self._portal = open_portal(self.library)
        self._series = secrets.token_hex(8)
        self._ids = [new_session_id(), f"foreign-{self._series}", new_session_id(), f"fremd-ü-{self._series}"]
        self._model: dict[int, Expected] = {}
        self._newest_versions = [0] * SLOTS
        self._creations = 0

        async def make() -> BaseSessionStore:
            return self.make_store()

        self.store = self._portal.run(make)

    def teardown(self) -> None:
        """Remove the series' sessions and close the store."""

        async def finish() -> None:
            for session_id in self._ids:
                await self.store.delete(session_id)
            await self.store.aclose()

        try:
            self._portal.run(finish)
        finally:
            self._portal.close()

    # --- single sessions ---------------------------------------------------------------------------------

    @rule(slot=slots, user=users, data=data_dicts, lifetime=lifetimes, absolute=st.none() | lifetimes)
    def create(
        self, slot: int, user: str | None, data: dict[Any, Any], lifetime: int, absolute: int | None
    ) -> None:
        """Create, over a live session too."""
        self._creations += 1
        session = SessionData(
            session_id=self._ids[slot],
            user_id=self._user(user),
            expires=self._after(lifetime),
            data=data,
            created=self._now(),
            absolute_expires=None if absolute is None else self._after(absolute),
            label=f"creation {self._creations}",
        )
        if self._live(slot) is not None:
            with raises(SessionExistsError):
                self._do(lambda: self.store.create(session))
            return
        version = self._risen(slot, self._do(lambda: self.store.create(session)))
        self._model[slot] = Expected(
            session.user_id,
            session.created,
            self._clamped(session.expires, session.absolute_expires),
            session.absolute_expires,
            session.label,
            version,
            data,
        )

    @rule(
        slot=slots,
        user=users,
        data=data_dicts,
        lifetime=lifetimes,
        condition=st.sampled_from(["none", "true", "stale"]),
    )
    def update(
        self, slot: int, user: str | None, data: dict[Any, Any], lifetime: int, condition: str
    ) -> None:
        """Update, with and without a condition, missing sessions too."""
        expected = self._live(slot)
        session = SessionData(
            session_id=self._ids[slot],
            user_id=self._user(user),
            expires=self._after(lifetime),
            data=data,
            created=self._after(1),
            label=expected.label if expected is not None else "",
        )
        current = self._newest_versions[slot] if expected is None else expected.version
        version = {"none": None, "true": current, "stale": current - 1}[condition]

        def attempt() -> Awaitable[int]:
            return self.store.update(self._ids[slot], session, version=version)

        if expected is None:
            with raises(SessionNotFoundError):
                self._do(attempt)
        elif condition == "stale":
            with raises(VersionConflictError):
                self._do(attempt)
        else:
            self._model[slot] = replace(
                expected,
                version=self._risen(slot, self._do(attempt)),
                user_id=session.user_id,
                expires=self._clamped(session.expires, expected.absolute_expires),
                data=data,
            )

    @rule(slot=slots)
    def delete(self, slot: int) -> None:
        """Delete, missing sessions too."""
        self._do(lambda: self.store.delete(self._ids[slot]))
        self._model.pop(slot, None)

    @rule(
        slot=slots,
        change=path_values,
        unset=path_lists,
        user=st.just(UNCHANGED) | users,
        lifetime=st.none() | lifetimes,
        expect=st.none() | st.tuples(paths, st.booleans()),
    )
    def patch(
        self,
        slot: int,
        change: dict[Path, Any],
        unset: list[Path],
        user: Any,
        lifetime: int | None,
        expect: tuple[Path, bool] | None,
    ) -> None:
        """Patch, with expectations that hold and that fail, missing sessions too."""
        expected = self._live(slot)
        holds, expectation = self._expectation(expected, expect)
        user_id = user if user is UNCHANGED else self._user(user)
        expires = None if lifetime is None else self._after(lifetime)

        def attempt() -> Awaitable[SessionData]:
            return self.store.patch(
                self._ids[slot],
                set=change,
                unset=unset,
                expect=expectation,
                user_id=user_id,
                expires=expires,
            )

        if expected is None:
            with raises(SessionNotFoundError):
                self._do(attempt)
        elif not holds:
            with raises(VersionConflictError):
                self._do(attempt)
        elif (data := patched(expected.data, change, unset)) is None:
            with raises(PathThroughListError):
                self._do(attempt)
        else:
            found = self._do(attempt)
            self._model[slot] = self._patched(slot, expected, found.version, data, user_id, expires)
            self._compare(slot, found)

    @rule(slot=slots, key=keys, value=values)
    def modify(self, slot: int, key: str | int, value: Any) -> None:
        """Modify, missing sessions too."""
        expected = self._live(slot)

        def change(session: SessionData) -> None:
            session.data[key] = value

        def attempt() -> Awaitable[SessionData]:
            return self.store.modify(self._ids[slot], change)

        if expected is None:
            with raises(SessionNotFoundError):
                self._do(attempt)
        else:
            found = self._do(attempt)
            version = self._risen(slot, found.version)
            self._model[slot] = replace(expected, version=version, data={**expected.data, key: value})
            self._compare(slot, found)

    @precondition(lambda self: "rotate" in self.store.features)
    @rule(slot=slots, change=path_values, unset=path_lists, user=st.just(UNCHANGED) | users)
    def rotate(self, slot: int, change: dict[Path, Any], unset: list[Path], user: Any) -> None:
        """Rotate, missing sessions too; the slot goes on with the new id."""
        expected = self._live(slot)
        old_id = self._ids[slot]
        user_id = user if user is UNCHANGED else self._user(user)

        def attempt() -> Awaitable[SessionData]:
            return self.store.rotate(old_id, user_id=user_id, set=change, unset=unset)

        if expected is None:
            with raises(SessionNotFoundError):
                self._do(attempt)
            return
        data = patched(expected.data, change, unset)
        if data is None:
            with raises(PathThroughListError):
                self._do(attempt)
            return
        found = self._do(attempt)
        assert found.session_id != old_id
        assert point_of(found.session_id) == point_of(old_id)
        assert self._do(lambda: self.store.get(old_id)) is None
        self._ids[slot] = found.session_id
        self._model[slot] = self._patched(slot, expected, found.version, data, user_id, None)
        self._compare(slot, found)

    # --- by user -----------------------------------------------------------------------------------------

    @precondition(lambda self: "list_by_user" in self.store.features)
    @rule(name=named_users)
    def list_by_user(self, name: str) -> None:
        """List, and compare what is shown."""
        user_id = self._user(name)
        listed = self._list(name)
        expected = [self._model[slot] for slot in self._slots_of(user_id)]
        assert {(info.label, info.version, info.created, info.expires, info.user_id) for info in listed} == {
            (session.label, session.version, session.created, session.expires, user_id)
            for session in expected
        }
        assert len(listed) == len(expected)
        assert [info.created for info in listed] == sorted((info.created for info in listed), reverse=True)

    @precondition(lambda self: {"list_by_user", "delete_by_handle"} <= self.store.features)
    @rule(slot=slots, owner=named_users, caller=named_users)
    def delete_by_handle(self, slot: int, owner: str, caller: str) -> None:
        """Delete by a handle from a list, one's own and another's."""
        expected = self._live(slot)
        if expected is None or expected.user_id != self._user(owner):
            return
        [handle] = [info.handle for info in self._list(owner) if info.label == expected.label]
        self._do(lambda: self.store.delete_by_handle(f"{caller}-{self._series}", handle))
        if caller == owner:
            del self._model[slot]

    @precondition(lambda self: "delete_by_user" in self.store.features)
    @rule(name=named_users, keep=st.none() | slots)
    def delete_by_user(self, name: str, keep: int | None) -> None:
        """Log out everywhere, perhaps except one session of any user."""
        user_id = f"{name}-{self._series}"
        doomed = [slot for slot in self._slots_of(user_id) if slot != keep]
        kept_id = None if keep is None else self._ids[keep]
        assert self._do(lambda: self.store.delete_by_user(user_id, keep=kept_id)) == len(doomed)
        for slot in doomed:
            del self._model[slot]

    # --- time --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.clock is not None)
    @rule(seconds=st.sampled_from([1, 9.999999, 10, 100]))
    def pass_time(self, seconds: float) -> None:
        """Let sessions expire."""
        assert self.clock is not None
        self.clock.advance(seconds)

    @rule()
    def clean(self) -> None:
        """Clean; how much there was to clean the model does not know."""
        assert self._do(self.store.clean) >= 0

    @invariant()
    def every_session_is_as_expected(self) -> None:
        """Compare every session."""
        for slot, session_id in enumerate(self._ids):
            self._compare(slot, self._do(partial(self.store.get, session_id)))

    # --- inside ------------------------------------------------------------------------------------------

    def _do(self, action: Callable[[], Awaitable[Result]]) -> Result:
        return self._portal.run(action)

    def _now(self) -> datetime:
        return utc_now() if self.clock is None else self.clock()

    def _after(self, seconds: int) -> datetime:
        """Without a clock to set, nothing may expire in the middle of a series."""
        return self._now() + timedelta(seconds=seconds if self.clock is not None else MONTH_SECONDS + seconds)

    def _user(self, name: str | None) -> str | None:
        return None if name is None else f"{name}-{self._series}"

    def _live(self, slot: int) -> Expected | None:
        expected = self._model.get(slot)
        if expected is not None and expected.expires <= self._now():
            del self._model[slot]
            return None
        return expected

    def _slots_of(self, user_id: str | None) -> list[int]:
        return [
            slot
            for slot in range(SLOTS)
            if (expected := self._live(slot)) is not None and expected.user_id == user_id
        ]

    def _list(self, name: str) -> list[SessionInfo]:
        return self._do(lambda: self.store.list_by_user(f"{name}-{self._series}"))

    def _risen(self, slot: int, version: int) -> int:
        assert version > self._newest_versions[slot], "a version must be higher than all before it"
        self._newest_versions[slot] = version
        return version

    @staticmethod
    def _clamped(expires: datetime, absolute: datetime | None) -> datetime:
        return expires if absolute is None else min(expires, absolute)

    @staticmethod
    def _expectation(
        expected: Expected | None, expect: tuple[Path, bool] | None
    ) -> tuple[bool, dict[Path, Any]]:
        """Return whether an expectation holds, and the expectation."""
        if expect is None:
            return True, {}
        path, holds = expect
        value = value_at({} if expected is None else expected.data, path)
        if not holds:
            value = 0 if value is ABSENT else [value, "changed"]
        return holds, {path: value}

    def _patched(
        self,
        slot: int,
        expected: Expected,
        version: int,
        data: dict[Any, Any],
        user_id: Any,
        expires: datetime | None,
    ) -> Expected:
        return replace(
            expected,
            version=self._risen(slot, version),
            data=data,
            user_id=expected.user_id if user_id is UNCHANGED else user_id,
            expires=expected.expires
            if expires is None
            else self._clamped(expires, expected.absolute_expires),
        )

    def _compare(self, slot: int, found: SessionData | None) -> None:
        expected = self._live(slot)
        if expected is None:
            assert found is None, "the store has a session that must not exist"
            return
        assert found is not None, "the store lost a session"
        assert found.session_id == self._ids[slot]
        assert same_value(found.data, expected.data), (found.data, expected.data)
        assert expected.matches(found), (found, expected)
