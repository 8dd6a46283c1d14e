"""The middleware over ClusterStore and real sockets: every one of its writes exists on the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from greenroom import ClusterStore, UnavailableError, UsageError
from greenroom.testing import Library, login_as
from greenroom.web import Session, SessionMiddleware
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.web_stage import SECRET, browser, session_of, tell


async def step(request: Request) -> Response:
    session = session_of(request)
    match request.query_params.get("do"):
        case "add":
            session.setdefault("cart", {})["mug"] = session.get("cart", {}).get("mug", 0) + 1
        case "login":
            session.greenroom.login("alice", {"theme": "dark"}, keep=("cart",))
        case "logout":
            session.greenroom.logout()
        case "others":
            session.greenroom.logout_everywhere(keep_current=True)
        case "devices":
            return JSONResponse(len(await session.greenroom.devices()))
    return JSONResponse([session.greenroom.user_id, session])


async def plain(_request: Request) -> Response:
    return PlainTextResponse("ok")


def make_app(cluster: FakeCluster, deadline_seconds: float = 5.0, **options: Any) -> Any:
    app = Starlette(routes=[Route("/", step), Route("/plain", plain)])
    sessions = Session(
        secret=SECRET, store=ClusterStore(cluster.address, deadline_seconds=deadline_seconds), **options
    )
    app.add_middleware(SessionMiddleware, session=sessions)
    return app


def test_a_visit_from_first_click_to_logout(library: Library) -> None:
    async def story(cluster: FakeCluster) -> None:
        app = make_app(cluster)
        async with browser(app) as visitor, browser(app) as other:
            await visitor.get("/?do=add")
            await visitor.get("/?do=add")
            assert (await visitor.get("/?do=login")).json() == [
                "alice",
                {"cart": {"mug": 2}, "theme": "dark"},
            ]
            await other.get("/?do=login")
            assert (await visitor.get("/?do=devices")).json() == 2
            await visitor.get("/?do=others")
            assert (await other.get("/")).json() == [None, {}]
            assert (await visitor.get("/")).json()[0] == "alice"
            await visitor.get("/?do=logout")
            assert (await visitor.get("/")).json() == [None, {}]

    with FakeCluster(actors=2, shards=16) as cluster:
        tell(library, lambda: story(cluster))


def test_a_new_event_loop_for_every_request(library: Library) -> None:
    with FakeCluster(actors=2, shards=16) as cluster:
        client = TestClient(make_app(cluster), base_url="https://testserver", backend=library.name)  # type: ignore[arg-type]
        login_as(client, "alice", cart={"mug": 1})
        for count in (2, 3):
            assert client.get("/?do=add").json() == ["alice", {"cart": {"mug": count}}]


@pytest.mark.parametrize("policy", ["closed", "anonymous"])
def test_no_cluster_to_reach(library: Library, policy: str) -> None:
    async def story() -> None:
        with FakeCluster(actors=1, shards=4) as gone:
            app = make_app(gone, deadline_seconds=0.2, on_unavailable=policy)
        async with browser(app) as visitor:
            assert (await visitor.get("/plain")).status_code == 200, "no cookie, no question"
            visitor.cookies.set(
                "__Host-session", Session(secret=SECRET, dev=True).signer.sign("gr-0000-unknown")
            )
            assert (await visitor.get("/plain")).status_code == (503 if policy == "closed" else 200)
            assert (await visitor.get("/?do=add")).status_code == 503

    tell(library, story)


# --- check -----------------------------------------------------------------------------------------------


def test_check_needs_no_cluster_for_a_memory_store(library: Library) -> None:
    async def story() -> None:
        await Session(secret=SECRET, store="memory://").check()

    tell(library, story)


def test_check_passes_where_the_cluster_serves_and_tells_a_wrong_name(library: Library) -> None:
    async def story(cluster: FakeCluster) -> None:
        async with Session(secret=SECRET, store=f"greenroom://{cluster.address}/shop") as sessions:
            await sessions.check()
        async with Session(secret=SECRET, store=f"greenroom://{cluster.address}/other") as sessions:
            with pytest.raises(UsageError, match="cluster='other'"):
                await sessions.check()

    with FakeCluster(actors=2, shards=4, cluster="shop") as cluster:
        tell(library, lambda: story(cluster))


def test_check_says_that_nobody_answers(library: Library) -> None:
    async def story(address: str) -> None:
        async with Session(secret=SECRET, store=f"greenroom://{address}?deadline_seconds=0.2") as sessions:
            with pytest.raises(UnavailableError):
                await sessions.check()

    with FakeCluster(actors=1, shards=4) as gone:
        address = gone.address
    tell(library, lambda: story(address))


def checked_app(url: str) -> Any:
    """Return an app that checks its store when it starts, and at /ready."""
    sessions = Session(secret=SECRET, store=url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await sessions.check()
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(SessionMiddleware, session=sessions)

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        await sessions.check()
        return {"ready": True}

    return app


def test_an_app_with_a_wrong_cluster_name_does_not_start() -> None:
    with FakeCluster(actors=1, shards=4, cluster="shop") as cluster:
        with TestClient(checked_app(f"greenroom://{cluster.address}/shop")) as client:
            assert client.get("/ready").json() == {"ready": True}
        with (
            pytest.raises(UsageError, match="cluster='other'"),
            TestClient(checked_app(f"greenroom://{cluster.address}/other")),
        ):
            pass


def test_ready_answers_503_while_the_cluster_is_away() -> None:
    with FakeCluster(actors=1, shards=4) as gone:
        address = gone.address
    response = TestClient(checked_app(f"greenroom://{address}?deadline_seconds=0.2")).get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
