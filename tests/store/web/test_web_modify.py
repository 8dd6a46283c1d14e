"""`session.greenroom.modify`: counters and lists of requests that meet."""

import asyncio
from typing import Any

import pytest

from greenroom import MemoryStore, UsageError, VersionConflictError
from greenroom.testing import FaultyStore
from greenroom.web import Session, Visit

SECRET = "a secret for tests only, long enough"


async def visits_of_one_session(store: FaultyStore, count: int, **data: Any) -> list[Visit]:
    """Return so many requests of one browser, all of them loaded."""
    sessions = Session(secret=SECRET, store=store)
    first = sessions.visit(())
    first.session.update({"theme": "dark", **data})
    await first.save()
    assert first.stored is not None
    cookie = f"__Host-session={sessions.signer.sign(first.stored.session_id)}"
    visits = [sessions.visit([cookie]) for _ in range(count)]
    for visit in visits:
        await visit.load()
    return visits


def count_up(data: dict[Any, Any]) -> None:
    data["visits"] = data.get("visits", 0) + 1


def test_every_count_counts() -> None:
    async def main() -> None:
        visits = await visits_of_one_session(FaultyStore(MemoryStore()), 20)
        assert all(await asyncio.gather(*(visit.session.greenroom.modify(count_up) for visit in visits)))
        await visits[0].reload()
        assert visits[0].session == {"theme": "dark", "visits": 20}

    asyncio.run(main())


def test_every_item_of_a_list_is_kept_and_other_changes_do_not_matter() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        one, two, three = await visits_of_one_session(store, 3, list=[])
        two.session["theme"] = "light"
        await two.save()
        await one.session.greenroom.modify(lambda data: data["list"].append("x"))
        assert one.session == {"theme": "light", "list": ["x"]}
        assert store.calls["get"] == 3, "nothing is read again for a change elsewhere"
        await three.session.greenroom.modify(lambda data: data["list"].append("y"))
        assert three.session["list"] == ["x", "y"]
        assert not three.is_modified()

    asyncio.run(main())


def test_what_stands_in_the_session_is_saved_before() -> None:
    async def main() -> None:
        (visit,) = await visits_of_one_session(FaultyStore(MemoryStore()), 1)
        visit.session["note"] = "ring"
        assert await visit.session.greenroom.modify(lambda data: data.pop("theme"))
        await visit.reload()
        assert visit.session == {"note": "ring"}

    asyncio.run(main())


def test_a_change_that_changes_nothing_writes_nothing() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        (visit,) = await visits_of_one_session(store, 1)
        assert await visit.session.greenroom.modify(lambda _data: None)
        assert store.writes == 1

    asyncio.run(main())


def test_without_a_session_it_creates_one() -> None:
    async def main() -> None:
        store = MemoryStore()
        visit = Session(secret=SECRET, store=store).visit(())
        assert await visit.session.greenroom.modify(count_up)
        assert visit.is_stored
        assert visit.session == {"visits": 1}

    asyncio.run(main())


def test_after_a_logout_it_is_dropped() -> None:
    async def main() -> None:
        one, two = await visits_of_one_session(FaultyStore(MemoryStore()), 2)
        one.session.greenroom.logout()
        await one.save()
        assert not await two.session.greenroom.modify(count_up)
        assert two.session.greenroom.lost
        assert not two.set_cookies()

    asyncio.run(main())


def test_it_gives_up_where_others_are_always_faster() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        (visit,) = await visits_of_one_session(store, 1)
        store.fail("patch", VersionConflictError("someone else was faster"))
        store.contention_seconds = 0.2
        with pytest.raises(VersionConflictError, match=r"others changed the session.* attempts in 0\.2 s"):
            await visit.session.greenroom.modify(count_up)

    asyncio.run(main())


def test_a_list_that_came_into_the_way_is_read_again() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        one, two = await visits_of_one_session(store, 2, visits={})
        two.session["visits"] = ["not a dict"]
        await two.save()

        def change(data: dict[Any, Any]) -> None:
            if isinstance(data["visits"], list):
                data["visits"].append("one")
            else:
                data["visits"]["one"] = 1

        assert await one.session.greenroom.modify(change)
        assert one.session["visits"] == ["not a dict", "one"]

    asyncio.run(main())


@pytest.mark.parametrize("conflict", [False, True])
@pytest.mark.parametrize(
    ("asked", "user_id", "data"),
    [
        ("status", None, {"theme": "dark", "status": "typing"}),
        ("login", "alice", {"theme": "dark"}),
        ("logout", None, {}),
    ],
)
def test_what_another_task_of_the_request_asks_meanwhile_stays(
    asked: str, user_id: str | None, data: dict[str, Any], *, conflict: bool
) -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        (visit,) = await visits_of_one_session(store, 1, visits=0)
        record = visit.stored
        assert record is not None
        gate = store.hold("patch")

        async def other() -> None:
            await gate.reached()
            if asked == "status":
                visit.session["status"] = "typing"
            elif asked == "login":
                visit.session.greenroom.login("alice", keep=True)
            else:
                visit.session.greenroom.logout()
            if conflict:
                await store.inner.patch(record.session_id, set={"visits": 50})
            gate.open()

        await asyncio.gather(visit.session.greenroom.modify(count_up), other())
        await visit.save()
        assert visit.session.greenroom.user_id == user_id
        count = {"visits": 51 if conflict else 1} if asked != "logout" else {}
        assert visit.session == {**data, **count}
        assert visit.session.greenroom.stored == (asked != "logout")

    asyncio.run(main())


def test_a_value_that_modify_does_not_touch_stays_the_same_object() -> None:
    async def main() -> None:
        (visit,) = await visits_of_one_session(FaultyStore(MemoryStore()), 1, cart={})
        cart = visit.session["cart"]
        await visit.session.greenroom.modify(count_up)
        cart["mug"] = 1
        await visit.save()
        await visit.reload()
        assert visit.session == {"theme": "dark", "cart": {"mug": 1}, "visits": 1}

    asyncio.run(main())


def test_a_first_session_is_modified_by_a_plain_function_or_not_at_all() -> None:
    def half(data: dict[Any, Any]) -> None:
        data["half"] = 1
        raise RuntimeError("the other half failed")

    async def later(data: dict[Any, Any]) -> None:
        data["never"] = 1

    async def main() -> None:
        visit = Session(secret=SECRET, store=MemoryStore()).visit(())
        with pytest.raises(UsageError, match="plain function"):
            await visit.session.greenroom.modify(later)
        with pytest.raises(RuntimeError):
            await visit.session.greenroom.modify(half)
        assert visit.session == {}
        assert not visit.session.greenroom.stored

    asyncio.run(main())
