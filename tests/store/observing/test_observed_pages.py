"""What requests did to their session is told once for each, whatever framework serves it."""

import gc
from typing import Any

import pytest

from greenroom import MemoryStore, SessionData, UsageError
from greenroom.observing import ObservedStore, observe
from greenroom.sessions import StoredSession
from greenroom.testing import Library
from greenroom.web import Session, SessionMiddleware
from tests.store.observing.site import Site
from tests.store.observing.stage import Heard
from tests.store.web.web_stage import SECRET, Socket, tell, twin


def test_each_page_is_told_once(library: Library) -> None:
    heard = Heard()
    site = Site(heard)

    async def story() -> None:
        statuses = await site.visit(
            *("home", "look", "add", "home", "look", "add", "count", "again", "login", "discard", "logout")
        )
        assert set(statuses) == {200}

    tell(library, story)
    assert heard.pages == [
        *("anonymous", "anonymous", "created", "unused", "read", "changed", "changed", "changed"),
        *("rotated", "discarded", "ended"),
    ]


def test_a_handler_that_fails_has_discarded(library: Library) -> None:
    heard = Heard()
    site = Site(heard)

    async def story() -> None:
        assert await site.visit("add", "fail") == [200, 500]

    tell(library, story)
    assert heard.pages == ["created", "discarded"]


def test_a_session_in_use_is_extended(library: Library) -> None:
    heard = Heard()
    site = Site(heard, idle_seconds=600)

    async def story() -> None:
        await site.visit("add")
        site.stage.clock.advance(300)
        await site.visit("look", "look")

    tell(library, story)
    assert heard.pages == ["created", "extended", "read"]


def test_a_change_that_comes_too_late_is_told(library: Library) -> None:
    """The session was ended in another tab while the handler worked."""
    heard = Heard()
    site = Site(heard)

    async def story() -> None:
        await site.visit("login")
        other = twin(site.app, site.jar)
        gate = site.stage.store.hold("patch")

        async def late() -> None:
            await site.visit("add")

        async def meanwhile() -> None:
            await gate.reached()
            await other.get("/logout")
            gate.open()

        for outcome in await library.gather(late, meanwhile):
            assert not isinstance(outcome, Exception)

    tell(library, story)
    assert sorted(heard.pages) == sorted(["created", "ended", "dropped"])


@pytest.mark.parametrize(
    ("operation", "on_unavailable", "statuses", "pages"),
    [
        ("get", "closed", [200, 503], ["created", "refused"]),
        ("patch", "closed", [200, 503], ["created", "refused"]),
        ("get", "anonymous", [200, 503], ["created", "refused"]),
    ],
)
def test_a_store_that_is_away_is_told(
    library: Library, operation: str, on_unavailable: str, statuses: list[int], pages: list[str]
) -> None:
    heard = Heard()
    site = Site(heard, on_unavailable=on_unavailable)

    async def story() -> None:
        first = await site.visit("add")
        site.stage.store.fail(operation)
        assert first + await site.visit("add") == statuses

    tell(library, story)
    assert heard.pages == pages


def test_to_read_nothing_of_a_store_that_is_away(library: Library) -> None:
    heard = Heard()
    site = Site(heard, on_unavailable="anonymous")

    async def story() -> None:
        await site.visit("add")
        site.stage.store.fail("get")
        assert await site.visit("look") == [200]

    tell(library, story)
    assert heard.pages == ["created", "degraded"]


class Slow(MemoryStore):
    """Takes whole seconds, by a clock that stands still otherwise."""

    now_ns = 0

    def take(self, seconds: int) -> None:
        self.now_ns += seconds * 1_000_000_000

    async def create(self, session: SessionData) -> int:
        self.take(2)
        return await super().create(session)

    async def get_stored(self, session_id: str) -> StoredSession | None:
        self.take(1)
        return await super().get_stored(session_id)

    async def patch_stored(self, session_id: str, **options: Any) -> StoredSession:
        self.take(3)
        return await super().patch_stored(session_id, **options)


def test_the_time_of_a_page_is_that_of_its_session(library: Library) -> None:
    """The last one loads, saves and loads again."""
    heard, store = Heard(), Slow()
    site = Site(heard, store=store, clock_ns=lambda: store.now_ns)

    async def story() -> None:
        await site.visit("home", "add", "look", "again")

    tell(library, story)
    assert heard.pages == ["anonymous", "created", "read", "changed"]
    assert heard.page_seconds == pytest.approx([0, 2, 1, 5])
    assert [each.seconds for each in heard.operations] == pytest.approx([2, 1, 1, 3, 1])


def test_a_page_whose_store_is_away_took_time_too(library: Library) -> None:
    heard = Heard()
    site = Site(heard)

    async def story() -> None:
        await site.visit("add")
        site.stage.store.fail("get")
        await site.visit("look")

    tell(library, story)
    assert heard.pages == ["created", "refused"]
    assert all(0 < each < 30 for each in heard.page_seconds)


def test_a_session_that_is_found_gone_drops_nothing(library: Library) -> None:
    heard = Heard()
    site = Site(heard)
    tell(
        library,
        lambda: site.visit("login", "end_elsewhere", "login", "end_and_read", "login", "end_and_count"),
    )
    assert heard.pages == ["created", "dropped", "created", "read", "created", "dropped"]


def test_a_socket_is_told_when_it_ends(library: Library) -> None:
    heard = Heard()
    site = Site(heard)

    async def chat(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["session"]["cart"] = 1
        await send({"type": "websocket.accept"})
        assert heard.pages == []
        while (await receive())["type"] != "websocket.disconnect":
            scope["session"]["cart"] += 1

    socket = Socket("one", "two")
    served = SessionMiddleware(chat, session=site.stage.sessions)
    tell(library, lambda: served(socket.scope, socket.receive, socket.send))
    assert heard.pages == ["created"]
    assert heard.counted() == {("create", "done"): 1, ("patch", "done"): 1, ("watch", "done"): 1}


def test_events_are_those_of_the_session(library: Library) -> None:
    heard = Heard()
    site = Site(heard)
    tell(library, lambda: site.visit("add", "add", "look"))
    (events,) = heard.events
    assert events()["creates"] == 1
    assert events()["patches"] == 1
    assert events()["loads"] == 2


def test_the_store_of_the_sessions_is_observed_with_them(library: Library) -> None:
    heard = Heard()
    site = Site(heard)
    tell(library, lambda: site.visit("add", "add", "look", "logout"))
    assert heard.counted() == {
        ("create", "done"): 1,
        ("get", "done"): 3,
        ("patch", "done"): 1,
        ("delete", "done"): 1,
    }


def test_a_store_that_is_observed_is_left_as_it_is() -> None:
    store = ObservedStore(MemoryStore(), Heard())
    sessions = Session(secret=SECRET, store=store)
    observe(sessions, Heard())
    assert sessions.store is store


def test_to_observe_twice_is_refused() -> None:
    sessions = Session(secret=SECRET, store=MemoryStore())
    observe(sessions, Heard())
    with pytest.raises(UsageError, match="at once"):
        observe(sessions, Heard())


def test_a_session_that_is_gone_tells_nothing() -> None:
    heard = Heard()
    sessions = Session(secret=SECRET, store=MemoryStore())
    observe(sessions, heard)
    del sessions
    gc.collect()
    (events,) = heard.events
    assert events() == {}
