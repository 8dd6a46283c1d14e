"""What a template sees: the keys of the app, and nothing of ours. What a copy takes along: the data alone."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp_session
import httpx
import jinja2
import litestar
import pytest
import quart
from aiohttp import web
from aiohttp.test_utils import TestServer
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.response import Template
from litestar.template.config import TemplateConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from greenroom import MemoryStore
from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions, QuartSession
from greenroom.web import RequestSession, Session, SessionControl, SessionMiddleware

SECRET = "a secret that no copy and no page may show"
HIDDEN = "a value that no repr may show"

OWN_NAMES = sorted(
    {name for name in dir(SessionControl) if not name.startswith("__")} - {"mark_accessed"}
    | {"user", "login", "visit", "_visit", "store", "secret", "settings", "accessed", "modified"}
)
QUARTS_NAMES = {"accessed", "modified", "new", "permanent"}
"""What Quart itself reads of any session, as attributes."""


def template(names: list[str]) -> str:
    lines = []
    for name in names:
        lines.append(f"{name}={{{{ 'true' if session.{name} else 'false' }}}},{{{{ session.{name} }}}}")
        lines.append(f"{name}={{{{ 'true' if session['{name}'] else 'false' }}}},{{{{ session['{name}'] }}}}")
    return "\n".join([*lines, "end={{ session }}"])


async def rendered(app: Any, path: str) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.test") as client:
        await client.get("/keep")
        response = await client.get(path)
        assert response.status_code == 200, response.text
        return response.text


def starlette_app(sessions: Session, folder: Path, data: dict[str, Any]) -> Any:
    templates = Jinja2Templates(directory=str(folder))

    async def keep(request: Request) -> Response:
        request.session.update(data)
        return PlainTextResponse("kept")

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html", {"session": request.session})

    async def by_request(request: Request) -> Response:
        return templates.TemplateResponse(request, "by_request.html")

    app = Starlette(routes=[Route("/keep", keep), Route("/page", page), Route("/by_request", by_request)])
    app.add_middleware(SessionMiddleware, session=sessions)  # type: ignore[arg-type]  # mypy misses keywords
    return app


def quart_app(sessions: Session, folder: Path, data: dict[str, Any]) -> Any:
    app = quart.Quart(__name__, template_folder=str(folder))
    GreenroomSessions(sessions).init_app(app)

    @app.get("/keep")
    async def keep() -> str:
        quart.session.update(data)
        return "kept"

    @app.get("/page")
    async def page() -> str:
        return await quart.render_template("page.html")

    return app


def litestar_app(sessions: Session, folder: Path, data: dict[str, Any]) -> Any:
    @litestar.get("/keep")
    async def keep(request: litestar.Request[Any, Any, Any]) -> None:
        request.session.update(data)

    @litestar.get("/page", media_type="text/html")
    async def page(request: litestar.Request[Any, Any, Any]) -> Template:
        return Template("page.html", context={"session": request.session})

    @litestar.get("/by_request", media_type="text/html")
    async def by_request() -> Template:
        return Template("by_request.html")

    return litestar.Litestar(
        [keep, page, by_request],
        plugins=[SessionPlugin(sessions)],
        template_config=TemplateConfig(directory=folder, engine=JinjaTemplateEngine),
    )


APPS: dict[str, Callable[[Session, Path, dict[str, Any]], Any]] = {
    "starlette": starlette_app,
    "quart": quart_app,
    "litestar": litestar_app,
}


def names_in(name: str) -> list[str]:
    return [each for each in OWN_NAMES if name != "quart" or each not in QUARTS_NAMES]


def read(name: str, folder: Path, data: dict[str, Any], path: str) -> dict[str, list[str]]:
    """Return what the page of an app shows for each name, by attribute and by item."""
    lines = template(names_in(name))
    (folder / "page.html").write_text(lines)
    (folder / "by_request.html").write_text(lines.replace("session", "request.session"))
    sessions = Session(secret=SECRET, store=MemoryStore())
    text = asyncio.run(rendered(APPS[name](sessions, folder, data), path))
    shown: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        shown.setdefault(key, []).append(value)
    return shown


@pytest.mark.parametrize(
    ("name", "path"),
    [*((name, "/page") for name in APPS), ("starlette", "/by_request"), ("litestar", "/by_request")],
)
def test_a_key_that_is_absent_is_false(name: str, path: str, tmp_path: Path) -> None:
    shown = read(name, tmp_path, {"hidden": HIDDEN}, path)
    assert HIDDEN not in str(shown)
    del shown["end"]
    assert shown == {each: ["false,", "false,"] for each in names_in(name)}


@pytest.mark.parametrize(
    ("name", "path"),
    [*((name, "/page") for name in APPS), ("starlette", "/by_request"), ("litestar", "/by_request")],
)
def test_a_key_of_the_app_is_what_its_template_sees(name: str, path: str, tmp_path: Path) -> None:
    data = {each: f"<{each}>" for each in names_in(name)}
    shown = read(name, tmp_path, data, path)
    del shown["end"]
    assert shown == {each: [f"true,&lt;{each}&gt;"] * 2 for each in names_in(name)}


def test_beside_a_dict_a_session_has_one_name_and_what_frameworks_ask_for() -> None:
    def public(kind: type) -> set[str]:
        readable = {name for name in dir(kind) if not name.startswith("_")} - set(dir(dict))
        return {name for name in readable if getattr(getattr(kind, name), "fget", True) is not None}

    assert public(RequestSession) == {"greenroom", "mark_accessed"}
    assert public(QuartSession) == {"greenroom", "mark_accessed", *QUARTS_NAMES}


# --- copies ----------------------------------------------------------------------------------------------


def copies_of(session: Any) -> list[Any]:
    return [
        copy.copy(session),
        copy.deepcopy(session),
        *(pickle.loads(pickle.dumps(session, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        session.copy() if isinstance(session, dict) else dict(session),
    ]


def examined(session: Any) -> str:
    """Check the copies of a session that holds a cart and something hidden; return what its reprs show."""
    for found in copies_of(session):
        assert type(found) is dict
        assert found == {"cart": {"mug": 1}, "hidden": HIDDEN}
    deep = copy.deepcopy(session)
    deep["cart"]["mug"] = 2
    assert session["cart"] == {"mug": 1}
    assert SECRET.encode() not in pickle.dumps(session)
    with pytest.raises(TypeError, match=r"keep dict\(session\)"):
        pickle.dumps(session.greenroom)
    with pytest.raises(TypeError, match=r"keep dict\(session\)"):
        copy.deepcopy(session.greenroom)
    texts = [repr(session), str(session), repr(session.greenroom), repr(session.greenroom.login)]
    if isinstance(session, RequestSession):
        texts += [repr(session.items), repr(session.get), repr(session.clear), f"{session}"]
    return " ".join(texts)


def test_copies_in_starlette_are_plain_data() -> None:
    told: list[str] = []

    async def page(request: Request) -> Response:
        request.session.update({"cart": {"mug": 1}, "hidden": HIDDEN})
        told.append(examined(request.session))
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/page", page), Route("/keep", page)])
    app.add_middleware(SessionMiddleware, secret_key=SECRET, store=MemoryStore())
    asyncio.run(rendered(app, "/page"))
    assert HIDDEN not in told[1]
    assert SECRET not in told[1]
    assert "RequestSession" in told[1]


def test_copies_in_quart_are_plain_data() -> None:
    told: list[str] = []
    app = quart.Quart(__name__)
    app.session_interface = GreenroomSessions(Session(secret=SECRET, store=MemoryStore()))

    @app.get("/page")
    @app.get("/keep")
    async def page() -> str:
        quart.session.update({"cart": {"mug": 1}, "hidden": HIDDEN})
        own: Any = quart.session
        assert copy.copy(own) == dict(own)
        told.append(examined(own._get_current_object()))
        return ""

    asyncio.run(rendered(app, "/page"))
    assert HIDDEN not in told[1]


def test_copies_in_aiohttp_are_plain_data() -> None:
    told: list[str] = []

    async def page(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session.update({"cart": {"mug": 1}, "hidden": HIDDEN})
        told.append(examined(session))
        return web.Response()

    async def main() -> None:
        app = web.Application()
        aiohttp_session.setup(app, GreenroomStorage(Session(secret=SECRET, store=MemoryStore(), dev=True)))
        app.add_routes([web.get("/page", page)])
        async with TestServer(app) as server, httpx.AsyncClient() as client:
            for _ in range(2):
                assert (await client.get(str(server.make_url("/page")))).status_code == 200

    asyncio.run(main())
    assert HIDDEN not in told[1]


def test_a_session_that_is_not_loaded_is_copied_by_nobody() -> None:
    async def main() -> None:
        sessions = Session(secret=SECRET, store=MemoryStore())
        first = sessions.visit(())
        first.session["a"] = 1
        await first.save()
        assert first.stored is not None
        cookie = f"{sessions.cookie.name}={sessions.signer.sign(first.stored.session_id)}"
        session = sessions.visit([cookie]).session
        for act in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(Exception, match="not loaded"):
                act(session)
        assert "not loaded" in repr(session)

    asyncio.run(main())


def test_the_template_test_reads_as_jinja_does() -> None:
    """The fault that is looked for is found where it is: attributes go before keys."""

    class Faulty(dict[str, Any]):
        def user(self) -> None: ...

    text = jinja2.Environment(autoescape=True).from_string(template(["user"])).render(session=Faulty())
    assert text.startswith("user=true,&lt;bound method")
