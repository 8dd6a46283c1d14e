"""However a handler comes by a value that it can change, the change is stored; to look writes nothing."""

import copy
import operator
import pickle
from collections.abc import Callable
from string import Template
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from greenroom.testing import Library
from tests.store.web.web_stage import Stage, browser, session_of, tell

CART: dict[str, Any] = {"cart": {"items": ["mug"]}, "user": "alice"}


class Shape(msgspec.Struct):
    """Its field is what stands in the session, not a copy."""

    cart: Any


def matched(session: Any) -> Any:
    match session:
        case {"cart": cart}:
            return cart
    raise AssertionError


def popped(session: Any) -> Any:
    cart = session["cart"] = session.pop("cart")
    return cart


WAYS: dict[str, Callable[[Any], Any]] = {
    "[]": lambda session: session["cart"],
    "get": lambda session: session.get("cart"),
    "setdefault": lambda session: session.setdefault("cart", {}),
    "values": lambda session: next(iter(session.values())),
    "items": lambda session: next(value for key, value in session.items() if key == "cart"),
    "copy": lambda session: session.copy()["cart"],
    "copy.copy": lambda session: copy.copy(session)["cart"],
    "dict": lambda session: dict(session)["cart"],
    "**": lambda session: {**session}["cart"],
    "|": lambda session: (session | {})["cart"],
    "r|": lambda session: ({} | session)["cart"],
    "comprehension": lambda session: {key: session[key] for key in session}["cart"],
    "itemgetter": operator.itemgetter("cart"),
    "format": lambda session: session["cart"] if "{cart}".format(**session) else None,
    "match": matched,
    "pop": popped,
    "unbound": lambda session: dict.get(session, "cart"),
    "msgspec": lambda session: msgspec.convert(session, Shape).cart,
    "as_type": lambda session: session.greenroom.as_type(Shape).cart,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_what_was_handed_out_is_stored(library: Library, way: str) -> None:
    async def begin(request: Request) -> Response:
        request.session.update(copy.deepcopy(CART))
        return PlainTextResponse("begun")

    async def change(request: Request) -> Response:
        WAYS[way](session_of(request))["items"].append("pan")
        return PlainTextResponse("changed")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(begin, change)) as visitor:
            await visitor.get("/begin")
            await visitor.get("/change")
            assert await stage.data(visitor) == {"cart": {"items": ["mug", "pan"]}, "user": "alice"}

    tell(library, story)


LOOKS: dict[str, Callable[[Any], Any]] = {
    **WAYS,
    "in": lambda session: "cart" in session,
    "len": len,
    "keys": lambda session: list(session.keys()),
    "==": lambda session: session == CART,
    "scalar": lambda session: session["user"],
    "template": lambda session: Template("$user").substitute(session),
    "pickle": pickle.dumps,
    "user_id": lambda session: session.greenroom.user_id,
}
del LOOKS["pop"]


@pytest.mark.parametrize("way", LOOKS)
def test_a_look_writes_nothing_and_makes_the_response_vary(library: Library, way: str) -> None:
    async def begin(request: Request) -> Response:
        request.session.update(copy.deepcopy(CART))
        return PlainTextResponse("begun")

    async def look(request: Request) -> Response:
        LOOKS[way](session_of(request))
        return PlainTextResponse("seen")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(begin, look)) as visitor:
            await visitor.get("/begin")
            writes = stage.store.writes
            assert (await visitor.get("/look")).headers["vary"] == "Cookie"
            assert stage.store.writes == writes

    tell(library, story)
