"""Sessions of an app under freezegun: time that a test sets is the time of its sessions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI
from freezegun import freeze_time
from starlette.testclient import TestClient

from greenroom.integrations.fastapi import SessionDep
from greenroom.testing import login_as
from greenroom.web import Session, SessionMiddleware


def new_client(**options: Any) -> TestClient:
    # Before time is frozen: some of pydantic's modules cannot be imported while it is.
    app = FastAPI()
    app.add_middleware(SessionMiddleware, Session(dev=True, **options))

    @app.get("/visit")
    def visit(session: SessionDep) -> list[Any]:
        seen = session.get("seen")
        session["seen"] = datetime.now(UTC)
        return [session.greenroom.user_id, None if seen is None else seen.isoformat()]

    return TestClient(app)


def test_an_idle_session_ends_when_a_test_says_so() -> None:
    client = new_client()
    with freeze_time("2026-03-01 12:00:00", real_asyncio=True) as frozen:
        login_as(client, "alice", joined=datetime.now(UTC))
        assert client.get("/visit").json() == ["alice", None]
        frozen.tick(timedelta(minutes=29))
        assert client.get("/visit").json() == ["alice", "2026-03-01T12:00:00+00:00"]
        frozen.tick(timedelta(minutes=29))
        assert client.get("/visit").json() == ["alice", "2026-03-01T12:29:00+00:00"]
        frozen.tick(timedelta(minutes=30))
        assert client.get("/visit").json() == [None, None]


def test_an_absolute_lifetime_too() -> None:
    client = new_client(absolute_seconds=3600)
    with freeze_time("2026-03-01 12:00:00", real_asyncio=True) as frozen:
        login_as(client, "alice")
        for _ in range(3):
            frozen.tick(timedelta(minutes=19))
            assert client.get("/visit").json()[0] == "alice"
        frozen.tick(timedelta(minutes=3))
        assert client.get("/visit").json()[0] is None
