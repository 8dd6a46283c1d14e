"""The middleware over ClusterStore and real sockets: every one of its writes exists on the wire."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from greenroom import ClusterStore
from greenroom.testing import login_as
from greenroom.testing.libraries import Library
from greenroom.web import Session, SessionMiddleware
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.web_stage import SECRET, browser, session_of, tell


async def step(request: Request) -> Response:
    session = session_of(request)
    match request.query_params.get("do"):
        case "add":
            session.setdefault("cart", {})["mug"] = session.get("cart", {}).get("mug", 0) + 1
        case "login":
            session.login("alice", {"theme": "dark"})
        case "logout":
            session.logout()
        case "others":
            session.logout_everywhere(keep_current=True)
        case "devices":
            return JSONResponse(len(await session.devices()))
    return JSONResponse([session.user_id, session])


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
            visitor.cookies.set("session", Session(secret=SECRET, dev=True).signer.sign("gr-0000-unknown"))
            assert (await visitor.get("/plain")).status_code == (503 if policy == "closed" else 200)
            assert (await visitor.get("/?do=add")).status_code == 503

    tell(library, story)
