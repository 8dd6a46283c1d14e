"""What an observed store tells, of each of its methods."""

import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import timedelta
from typing import Any

import pytest

from greenroom import (
    BaseSessionStore,
    MemoryStore,
    OutcomeUnknownError,
    SessionData,
    SqliteStore,
    StoreFullError,
    UnavailableError,
    UnreadableSessionError,
    UsageError,
    new_session_id,
)
from greenroom.fields import utc_now
from greenroom.observing import KINDS, OUTCOMES, ObservedStore, Observer, Operation, Page
from greenroom.observing.observer import outcome_of
from greenroom.testing import FaultyStore, Library, available_libraries, library_named
from tests.store.observing.stage import Heard
from tests.store.web.web_stage import cancelled_at

SECONDS = 30.0
NOT_OPERATIONS = {"aclose", "endings"}
UNDER_OTHER_NAMES = {"get_stored", "at_hand", "patch_stored", "replace_stored"}


@pytest.fixture(params=available_libraries())
def library(request: pytest.FixtureRequest) -> Library:
    return library_named(request.param)


def session(**options: Any) -> SessionData:
    expires = utc_now() + timedelta(hours=1)
    return SessionData(session_id=new_session_id(), expires=expires, **options)


def told(library: Library, story: Callable[[BaseSessionStore], Awaitable[Any]]) -> list[tuple[str, str]]:
    """Return the kinds and outcomes of what a story does with an observed MemoryStore."""
    heard = Heard()
    library.run(lambda: story(ObservedStore(MemoryStore(), heard)), SECONDS)
    return [(each.kind, each.outcome) for each in heard.operations]


def test_every_method_of_a_store_is_passed_on() -> None:
    """Else the default of the base class would answer for the store that is observed."""
    public = {name for name, each in vars(BaseSessionStore).items() if inspect.isfunction(each)}
    public = {name for name in public if not name.startswith("_")} | {"watch"}
    assert public <= vars(ObservedStore).keys()
    assert public - NOT_OPERATIONS - UNDER_OTHER_NAMES == set(KINDS)


def test_each_operation_is_told_once(library: Library) -> None:
    async def story(store: BaseSessionStore) -> None:
        first, other = session(user_id="alice"), session(user_id="alice")
        await store.create(first)
        await store.create(other)
        await store.get(first.session_id)
        stored = await store.get_stored(first.session_id)
        assert stored is not None
        assert store.at_hand(first.session_id) == stored
        assert await store.replace_stored(stored, stored.data) is not None
        assert await store.replace_stored(stored, stored.data) is None
        await store.patch(first.session_id, set={"a": 1})
        await store.patch_stored(first.session_id, set={"a": 2})
        await store.modify(first.session_id, lambda found: found.data.clear())
        found = await store.get(first.session_id)
        assert found is not None
        await store.update(first.session_id, found, version=found.version)
        rotated = await store.rotate(first.session_id)
        listed = await store.list_by_user("alice")
        await store.delete_by_handle("alice", listed[0].handle)
        store.watch(rotated.session_id, lambda _: None).stop()
        await store.delete(rotated.session_id)
        await store.delete_by_user("alice")
        await store.clean()
        await store.check()
        await store.check(every_shard=True)

    kinds = [
        *("create", "create", "get", "get", "get", "update", "patch", "patch", "modify", "get", "update"),
        *("rotate", "list_by_user", "delete_by_handle", "watch", "delete", "delete_by_user", "clean"),
        *("check", "check"),
    ]
    assert told(library, story) == [(kind, "done") for kind in kinds]


def test_what_is_not_there_is_told(library: Library) -> None:
    async def story(store: BaseSessionStore) -> None:
        one = session()
        assert await store.get(one.session_id) is None
        assert await store.get_stored(one.session_id) is None
        assert store.at_hand(one.session_id) is None
        await store.create(one)
        for attempt in (
            lambda: store.create(one),
            lambda: store.patch(new_session_id(), set={"a": 1}),
            lambda: store.patch(one.session_id, set={"a": 1}, expect={"a": 2}),
            lambda: store.patch(one.session_id, set={"a": object()}),
            lambda: store.modify(one.session_id, lambda found: found.data["none"]),
        ):
            with pytest.raises(Exception):  # noqa: B017, PT011  which one is told, below
                await attempt()

    assert told(library, story) == [
        ("get", "missing"),
        ("get", "missing"),
        ("create", "done"),
        ("create", "exists"),
        ("patch", "not_found"),
        ("patch", "conflict"),
        ("patch", "invalid"),
        ("modify", "failed"),
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnavailableError("away"), "unavailable"),
        (StoreFullError("full"), "full"),
        (OutcomeUnknownError("?", harmless_to_repeat=True), "unknown"),
        (UnreadableSessionError("bad"), "unreadable"),
        (UsageError("wrong"), "invalid"),
        (ValueError("whatever"), "failed"),
    ],
)
def test_the_error_passes_through(library: Library, error: Exception, outcome: str) -> None:
    inner, heard = FaultyStore(), Heard()
    inner.fail("get", error)
    store = ObservedStore(inner, heard)

    async def story() -> None:
        with pytest.raises(type(error)) as caught:
            await store.get(new_session_id())
        assert caught.value is error

    library.run(story, SECONDS)
    assert [(each.outcome, each.error) for each in heard.operations] == [(outcome, error)]
    assert outcome in OUTCOMES


def test_a_cancelled_operation_is_told_as_that(library: Library) -> None:
    inner, heard = FaultyStore(), Heard()
    store = ObservedStore(inner, heard)

    async def story() -> bool:
        gate = inner.hold("get")
        return await cancelled_at(library, lambda: store.get(new_session_id()), gate)

    assert library.run(story, SECONDS)
    assert heard.counted() == {("get", "cancelled"): 1}


def test_what_ends_with_its_task_is_no_failure() -> None:
    for kind in (KeyboardInterrupt, GeneratorExit):
        assert outcome_of(kind()) == "cancelled"


def test_the_time_is_that_of_the_operation(library: Library) -> None:
    ticks = iter([5_000_000_000, 5_250_000_000])
    heard = Heard()
    store = ObservedStore(MemoryStore(), heard, clock_ns=lambda: next(ticks))
    library.run(store.clean, SECONDS)
    assert [each.seconds for each in heard.operations] == [pytest.approx(0.25)]


class Broken(Observer):
    def operation(self, operation: Operation) -> None:
        raise RuntimeError("alice's secret")

    def page(self, page: Page) -> None:
        raise RuntimeError("alice's secret")


def test_a_broken_observer_harms_nobody(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    store = ObservedStore(MemoryStore(), Broken(), heard)

    async def story() -> None:
        assert await store.create(session()) > 0
        assert await store.clean() == 0

    library.run(story, SECONDS)
    assert heard.counted() == {("create", "done"): 1, ("clean", "done"): 1}
    assert [each.getMessage() for each in caplog.records] == ["Broken raised RuntimeError; logged once"]


def test_several_observers_hear_the_same(library: Library) -> None:
    first, second = Heard(), Heard()
    library.run(ObservedStore(MemoryStore(), first, second).clean, SECONDS)
    assert first.operations == second.operations != []


def test_what_the_store_is_stays_visible(tmp_path: Any) -> None:
    for inner in (MemoryStore(), SqliteStore(tmp_path / "sessions.db")):
        store = ObservedStore(inner)
        assert (store.features, store.suspends) == (inner.features, inner.suspends)
        assert store.contention_seconds == inner.contention_seconds
        assert repr(store) == f"<ObservedStore of {inner!r}>"
        assert not hasattr(store, "near")


def test_a_copy_is_another_view_of_the_same_store(library: Library) -> None:
    heard = Heard()
    twin = copy(ObservedStore(MemoryStore(), heard))
    library.run(twin.clean, SECONDS)
    assert heard.counted() == {("clean", "done"): 1}


@pytest.mark.parametrize(
    "make", [lambda: ObservedStore("memory://"), lambda: ObservedStore(MemoryStore(), 7)]
)  # type: ignore[arg-type]
def test_what_is_no_store_and_no_observer_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()
