"""What survives of an anonymous session at a login: what the app names, and nothing that others wrote."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from greenroom import ClusterStore, UsageError
from greenroom.testing import Gate, Library
from greenroom.web import Session, Visit
from greenroom.wire import PATHS_MAX
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.remember_stage import STORES, stage_of
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell, together, twin

ABSOLUTE = {"idle_seconds": 1000, "absolute_seconds": 1000}
PLANTED = {"cart": {"mug": 1}, "return_to": "https://evil.example", "theme": "dark"}
KEEPS = [
    ({}, {}),
    ({"keep": False}, {}),
    ({"keep": ()}, {}),
    ({"keep": ("cart", "absent")}, {"cart": {"mug": 1}}),
    ({"keep": ["theme"]}, {"theme": "dark"}),
    ({"keep": True}, PLANTED),
]


async def begun(sessions: Session, data: dict[str, Any], user: str | None = None) -> list[bytes]:
    """Store a session with this data; return its cookie."""
    visit = sessions.visit([])
    if user is not None:
        control(visit).login(user)
    visit.session.update(data)
    await visit.save()
    assert visit.stored is not None
    return [f"{sessions.cookie.name}={sessions.signer.sign(visit.stored.session_id)}".encode()]


async def loaded(sessions: Session, cookie: list[bytes]) -> Visit:
    visit = sessions.visit(cookie)
    await visit.load()
    return visit


def control(visit: Visit) -> Any:
    return visit.session.greenroom  # type: ignore[attr-defined]  # a RequestSession


async def stored_data(sessions: Session, visit: Visit) -> Any:
    assert visit.stored is not None
    found = await sessions.store.get(visit.stored.session_id)
    assert found is not None
    return found.data


@pytest.mark.parametrize(("options", "survives"), KEEPS)
@pytest.mark.parametrize("lifetimes", [{}, ABSOLUTE], ids=["usual", "absolute"])
@STORES
def test_a_login_keeps_what_it_names(
    library: Library, kind: str, lifetimes: Any, options: Any, survives: Any
) -> None:
    async def story() -> None:
        sessions = stage_of(kind, **lifetimes).sessions
        visit = await loaded(sessions, await begun(sessions, PLANTED))
        control(visit).login("alice", {"role": "user"}, **options)
        visit.session["later"] = 1
        expected = {**survives, "role": "user", "later": 1}
        assert visit.session == expected
        assert await visit.save()
        assert await stored_data(sessions, visit) == expected

    tell(library, story)


def test_on_a_cluster(library: Library) -> None:
    async def story(address: str) -> None:
        async with ClusterStore(address) as store:
            sessions = Session(secret=SECRET, store=store)
            visit = await loaded(sessions, await begun(sessions, PLANTED))
            control(visit).login("alice", keep=("cart",))
            assert await visit.save()
            assert await stored_data(sessions, visit) == {"cart": {"mug": 1}}

    with FakeCluster(actors=2, shards=16) as cluster:
        tell(library, lambda: story(cluster.address))


@pytest.mark.parametrize("saved", [False, True])
def test_what_the_request_sets_itself_stays(library: Library, *, saved: bool) -> None:
    """Whether before or after the login, and whether it was saved in between."""

    async def story() -> None:
        sessions = Stage().sessions
        visit = await loaded(sessions, await begun(sessions, PLANTED))
        visit.session["name"] = "Alice"
        visit.session["theme"] = "light"
        if saved:
            await visit.save()
        control(visit).login("alice")
        assert visit.session == {"name": "Alice", "theme": "light"}
        assert await visit.save()
        assert await stored_data(sessions, visit) == {"name": "Alice", "theme": "light"}

    tell(library, story)


def test_a_session_that_begins_with_the_login_has_all_that_was_set(library: Library) -> None:
    async def story() -> None:
        sessions = Stage().sessions
        visit = await loaded(sessions, [])
        visit.session["name"] = "Alice"
        control(visit).login("alice")
        await visit.save()
        assert await stored_data(sessions, visit) == {"name": "Alice"}
        after = await loaded(sessions, await begun(sessions, PLANTED, "bob"))
        control(after).logout()
        after.session["theme"] = "dark"
        control(after).login("alice")
        await after.save()
        assert await stored_data(sessions, after) == {"theme": "dark"}, "set after the logout"

    tell(library, story)


def test_who_logs_in_again_keeps_everything(library: Library) -> None:
    async def story() -> None:
        sessions = Stage().sessions
        visit = await loaded(sessions, await begun(sessions, PLANTED, "alice"))
        control(visit).login("alice")
        await visit.save()
        assert await stored_data(sessions, visit) == PLANTED
        other = await loaded(sessions, await begun(sessions, PLANTED, "alice"))
        control(other).login("bob", keep=True)
        await other.save()
        assert await stored_data(sessions, other) == {}, "nothing of another user's, whatever is to be kept"

    tell(library, story)


@pytest.mark.parametrize("lifetimes", [{}, ABSOLUTE], ids=["usual", "absolute"])
@pytest.mark.parametrize("keys", [1, PATHS_MAX + 1])
@STORES
def test_what_the_planter_writes_meanwhile_does_not_survive(
    library: Library, kind: str, lifetimes: Any, keys: int
) -> None:
    """Between the load and the new id others still write under the old one, for as long as a login takes."""

    async def story() -> None:
        sessions = stage_of(kind, **lifetimes).sessions
        cookie = await begun(sessions, {"cart": {"mug": 1}})
        victim, planter = await loaded(sessions, cookie), await loaded(sessions, cookie)
        control(victim).login("alice", keep=("cart",))
        victim.session["profile"] = {"name": "Alice"}
        planter.session.update({f"return-to-{number}": "https://evil.example" for number in range(keys)})
        planter.session["profile"] = {"name": "Mallory", "admin": True}
        planter.session["cart"]["rug"] = 1
        assert await planter.save()
        assert await victim.save()
        assert await stored_data(sessions, victim) == {
            "cart": {"mug": 1, "rug": 1},
            "profile": {"name": "Alice"},
        }

    tell(library, story)


def test_a_form_that_was_sent_twice_keeps_what_it_names(library: Library) -> None:
    async def story() -> None:
        stage, gate = Stage(), Gate()

        async def put(request: Request) -> Response:
            session_of(request).update(PLANTED)
            return JSONResponse({})

        async def login(request: Request) -> Response:
            if "slow" in request.query_params:
                await gate.pass_through()
            session_of(request).greenroom.login("alice", {"role": "user"}, keep=("cart",))
            return JSONResponse({})

        app = stage.app(put, login)
        async with browser(app) as visitor:
            await visitor.get("/put")

            async def faster() -> None:
                await gate.reached()
                async with twin(app, visitor) as other:
                    await other.get("/login")
                gate.open()

            await together(library, lambda: visitor.get("/login?slow"), faster)
            assert await stage.data(visitor) == {"cart": {"mug": 1}, "role": "user"}

    tell(library, story)


@pytest.mark.parametrize("keep", ["cart", None, 1, [None], [True], {"cart": 1}, [b"cart"]])
def test_what_is_to_be_kept_is_named_by_keys(keep: Any) -> None:
    visit = Stage().sessions.visit([])
    with pytest.raises(UsageError, match=r"^keep is what survives"):
        control(visit).login("alice", keep=keep)
