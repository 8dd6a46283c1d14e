"""FastAPI: sessions and users as dependencies, in `def` and `async def` endpoints, typed, in OpenAPI."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from starlette.testclient import TestClient

from greenroom import UsageError
from greenroom.integrations.fastapi import (
    CurrentUserDep,
    RequireUser,
    SessionDep,
    UserIdDep,
    current_user,
    require_user,
    session_of_request,
)
from greenroom.testing import login_as
from greenroom.web import RequestSession, SessionDataError, SessionMiddleware
from tests.store.web.web_stage import Stage


class Profile(msgspec.Struct):
    """A part of what sessions hold; `cart` and others stay beside it."""

    born: datetime
    number: UUID
    credit: Decimal = Decimal(0)
    tags: set[str] = msgspec.field(default_factory=set)


STORED = {"born": datetime(2000, 1, 1, tzinfo=UTC), "number": UUID(int=7), "other": {"kept": True}}


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    theme: str


def make_client(**options: Any) -> tuple[TestClient, Stage]:
    stage = Stage(**options)
    app = FastAPI()
    app.add_middleware(SessionMiddleware, session=stage.sessions)

    @app.post("/cart/{sku}")
    def add(sku: str, session: SessionDep) -> dict[str, int]:
        cart = session.setdefault("cart", {})
        cart[sku] = cart.get(sku, 0) + 1
        return dict(cart)

    @app.post("/login/{user}")
    def login(user: str, session: SessionDep) -> None:
        session.greenroom.login(user, {"theme": "dark"})

    @app.post("/logout")
    def logout(session: SessionDep) -> None:
        session.greenroom.logout()

    @app.get("/me")
    def me(user_id: UserIdDep) -> str:
        return user_id

    @app.get("/user")
    def user(user: CurrentUserDep) -> Any:
        return user

    @app.get("/guarded", dependencies=[Depends(require_user)])
    async def guarded() -> str:
        return "in"

    @app.post("/profile")
    async def profile(session: SessionDep) -> Any:
        seen = session.greenroom.as_type(Profile)
        seen.credit += 1
        seen.tags.add("seen")
        session.greenroom.put(seen)
        return sorted(session)

    @app.get("/strict")
    def strict(session: SessionDep) -> str:
        try:
            return session.greenroom.as_type(Strict).theme
        except SessionDataError as error:
            raise HTTPException(422, str(error)) from error

    @app.post("/refused")
    def refused(session: SessionDep) -> None:
        session["before"] = "the refusal"
        session.greenroom.discard()
        raise HTTPException(409)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, session: SessionDep, user_id: UserIdDep) -> None:
        await websocket.accept()
        session["socket"] = user_id
        await websocket.send_json(dict(session))
        await websocket.close()

    return TestClient(app, base_url="https://testserver"), stage


def test_session_in_def_endpoints() -> None:
    client, stage = make_client()
    assert client.post("/cart/mug").json() == {"mug": 1}
    assert client.post("/cart/mug").json() == {"mug": 2}
    assert stage.store.calls == {"create": 1, "get": 1, "patch": 1}


def test_require_user_answers_401_until_login() -> None:
    client, _ = make_client(deserialize_user=lambda user_id: {"name": user_id})
    for path in ("/me", "/user", "/guarded"):
        response = client.get(path)
        assert response.status_code == 401
        assert "www-authenticate" in response.headers
    assert client.post("/login/alice").status_code == 200
    assert client.get("/me").json() == "alice"
    assert client.get("/user").json() == {"name": "alice"}
    assert client.get("/guarded").json() == "in"
    client.post("/logout")
    assert client.get("/me").status_code == 401


def test_a_user_who_is_gone_is_not_let_in() -> None:
    client, _ = make_client(deserialize_user=lambda _user_id: None)
    client.post("/login/alice")
    assert client.get("/user").status_code == 401


def test_as_type_validates_and_unknown_fields_survive() -> None:
    client, stage = make_client()
    login_as(client, "alice", **STORED)
    for _ in range(2):
        assert client.post("/profile").json() == ["born", "credit", "number", "other", "tags"]
    records = [record.data for record in stage.store.inner._table.sessions.values()]  # type: ignore[attr-defined]
    from greenroom.codec import decode_data

    assert decode_data(records[0]) == {**STORED, "credit": Decimal(2), "tags": {"seen"}}


def test_a_mismatch_is_an_error_of_its_own_and_never_a_logout() -> None:
    client, _ = make_client()
    login_as(client, "alice", theme=7, more=1)
    response = client.get("/strict")
    assert response.status_code == 422
    assert "does not fit Strict" in response.json()["detail"]
    with pytest.raises(SessionDataError, match="does not fit Profile: Object missing required field `born`"):
        client.post("/profile")
    assert client.get("/me").json() == "alice"


def test_discarded_changes_are_not_saved() -> None:
    client, stage = make_client()
    assert client.post("/refused").status_code == 409
    assert not stage.store.calls


def test_websockets_have_the_dependencies_too() -> None:
    client, _ = make_client()
    login_as(client, "alice", n=1)
    with client.websocket_connect("/socket") as websocket:
        assert websocket.receive_json() == {"n": 1, "socket": "alice"}


def test_openapi_declares_the_cookie() -> None:
    client, _ = make_client()
    schema = client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["sessionCookie"] == {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-session",
        "description": "Set by the server at login.",
    }
    assert schema["paths"]["/me"]["get"]["security"] == [{"sessionCookie": []}]
    assert schema["paths"]["/guarded"]["get"]["security"] == [{"sessionCookie": []}]
    (_, cookie) = schema["paths"]["/cart/{sku}"]["post"]["parameters"]
    assert (cookie["name"], cookie["in"], cookie["required"]) == ("__Host-session", "cookie", False)
    assert "security" not in schema["paths"]["/cart/{sku}"]["post"]


def test_dependencies_for_another_cookie_name() -> None:
    stage = Stage(cookie_name="shop")
    app = FastAPI()
    app.add_middleware(SessionMiddleware, session=stage.sessions)

    @app.get("/")
    def show(
        session: Annotated[RequestSession, Depends(session_of_request("shop"))],
        user_id: Annotated[str, Depends(RequireUser("shop", scheme_name="shop"))],
    ) -> list[Any]:
        return [user_id, dict(session)]

    client = TestClient(app, base_url="https://testserver")
    login_as(client, "alice", n=1)
    assert client.get("/").json() == ["alice", {"n": 1}]
    schema = client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["shop"]["name"] == "shop"


def test_without_the_middleware_the_error_says_so() -> None:
    app = FastAPI()

    @app.get("/")
    def show(session: SessionDep) -> None:
        session.greenroom.logout()

    with pytest.raises(UsageError, match="add it to the app"):
        TestClient(app).get("/")


def test_current_user_is_a_dependency_like_others() -> None:
    client, _ = make_client()
    app: Any = client.app
    app.dependency_overrides[current_user] = lambda: "somebody"
    assert client.get("/user").json() == "somebody"
