"""FastAPI: the session and its user as dependencies, typed, declared in OpenAPI, usable in `def` endpoints.

>>> app = FastAPI()
>>> app.add_middleware(SessionMiddleware, session=sessions)
>>>
>>> @app.post("/cart/{sku}")
... def add(sku: str, session: SessionDep) -> dict[str, int]:
...     cart = session.setdefault("cart", {})
...     cart[sku] = cart.get(sku, 0) + 1
...     return cart
>>>
>>> @app.get("/account")
... def account(user_id: UserIdDep) -> str:       # 401 unless logged in
...     return user_id

OpenAPI names the cookie `__Host-session`. For another name make the dependencies yourself:
`SessionDep = Annotated[RequestSession, Depends(session_of_request("shop"))]`, `RequireUser("shop")`.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

try:
    from fastapi import Cookie, Depends, HTTPException
    from fastapi.openapi.models import APIKey, APIKeyIn
    from fastapi.requests import HTTPConnection
    from fastapi.security.base import SecurityBase
except ImportError:
    raise ImportError(
        "greenroom.integrations.fastapi needs FastAPI; install it with: "
        "pip install 'itsdangerous>=2.2' 'fastapi>=0.100'",
        name="fastapi",
    ) from None

from greenroom.errors import UsageError
from greenroom.options import FASTAPI
from greenroom.web.request_session import RequestSession
from greenroom.web.scopes import innermost_visit
from greenroom.web.session import Session

__all__ = [
    "CurrentUserDep",
    "RequireUser",
    "SessionDep",
    "UserIdDep",
    "current_user",
    "require_user",
    "session_of_request",
]

COOKIE_NAME = "__Host-session"


def session_of_request(cookie_name: str = COOKIE_NAME) -> Callable[..., Awaitable[RequestSession]]:
    """Return a dependency that gives a handler its session; OpenAPI shows the cookie as a parameter.

    It raises UsageError where SessionMiddleware does not run.
    """
    FASTAPI.check(cookie_name=cookie_name)
    cookie = Cookie(alias=cookie_name, description="Set by the server when there is something to keep.")

    async def session(
        connection: HTTPConnection, _cookie: Annotated[str | None, cookie] = None
    ) -> RequestSession:
        return _session_of(connection)

    return session


class RequireUser(SecurityBase):
    """A dependency that gives a handler the id of the logged-in user, and answers 401 if there is none.

    OpenAPI shows the cookie as the security scheme of the endpoint.
    """

    def __init__(self, cookie_name: str = COOKIE_NAME, *, scheme_name: str = "sessionCookie") -> None:
        FASTAPI.check(cookie_name=cookie_name, scheme_name=scheme_name)
        model = {"in": APIKeyIn.cookie, "name": cookie_name, "description": "Set by the server at login."}
        self.model = APIKey.model_validate(model)
        self.scheme_name = scheme_name

    async def __call__(self, connection: HTTPConnection) -> str:
        """Return the user's id. Raises HTTPException (401)."""
        user_id = _session_of(connection).greenroom.user_id
        if user_id is None:
            raise _not_logged_in()
        return user_id


require_user = RequireUser()
"""As `Depends(require_user)`: the user's id, or 401."""

SessionDep = Annotated[RequestSession, Depends(session_of_request())]
"""As a parameter's type: the session."""

UserIdDep = Annotated[str, Depends(require_user)]
"""As a parameter's type: the id of the user who is logged in, or 401."""


async def current_user(session: SessionDep, _user_id: UserIdDep) -> Any:
    """Return what `deserialize_user` returns for the user; 401 if no one is logged in, or it returns None."""
    user = await session.greenroom.user()
    if user is None:
        raise _not_logged_in()
    return user


CurrentUserDep = Annotated[Any, Depends(current_user)]
"""As a parameter's type: the user as `deserialize_user` returns it, or 401."""


def _session_of(connection: HTTPConnection) -> RequestSession:
    visit = innermost_visit(connection.scope)
    sessions = None if visit is None else visit.settings
    if not isinstance(sessions, Session):
        raise UsageError("SessionMiddleware does not run here: add it to the app, or look at its skip=")
    session = sessions.of(connection)
    session.mark_accessed()
    return session


def _not_logged_in() -> HTTPException:
    return HTTPException(401, "Not logged in", {"WWW-Authenticate": 'Cookie realm="session"'})
