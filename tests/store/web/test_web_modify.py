"""`session.greenroom.modify`: counters and lists of requests that meet."""

import asyncio
from typing import Any

import pytest

from greenroom import MemoryStore, VersionConflictError
from greenroom.testing import FaultyStore
from greenroom.web import Session, Visit

SECRET = "s" * 32


async def visits_of_one_session(store: FaultyStore, count: int, **data: Any) -> list[Visit]:
    """Return so many requests of one browser, all of them loaded."""
    sessions = Session(secret=SECRET, store=store)
    first = sessions.visit(())
    first.session.update({"theme": "dark", **data})
    await first.save()
    assert first.record is not None
    cookie = f"__Host-session={sessions.signer.sign(first.record.session_id)}"
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
