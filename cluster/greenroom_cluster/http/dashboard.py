"""The dashboard's pages, the ticket by which a browser is known, and the stream of what it shows.

Hypercorn ends a stream that its viewer has left. One that does not read is ended by the connection's own
deadline for sending, so it holds up nobody but itself.
"""

from importlib.resources import files

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from trio import CancelScope

from greenroom_cluster.dashboard.editions import event, greeting
from greenroom_cluster.http.answers import asked_of, refusal_of, refused
from greenroom_cluster.http.door import DASHBOARD_PATH, Refusal
from greenroom_cluster.http.guard import Guard
from greenroom_cluster.http.live import Live, Sent
from greenroom_cluster.http.looks import Looks
from greenroom_cluster.http.tickets import Tickets, drop_cookie, set_cookie, ticket_in
from greenroom_cluster.runtime.tasks import open_tasks

VIEWERS_MAX = 16
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("script-src", "style-src", "img-src", "connect-src")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "vary": "cookie",
}
_ASKED_BY_PAGE = "x-greenroom-page"
"""A header that only a page of this port can send, and a link or a page of another origin cannot."""
_HIDDEN, _SHOWN = b'<button id="sign-out" type="button" hidden>', b'<button id="sign-out" type="button">'
_BOARD_OF_TICKET = "board_of_ticket.html"
"""The dashboard for who may sign out."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Dashboard:
    """The pages below /dashboard. `routes` are theirs."""

    def __init__(self, looks: Looks, guard: Guard) -> None:
        self._guard = guard
        self._tickets = Tickets()
        self._live = Live(looks)
        self._viewers = 0
        folder = files("greenroom_cluster.http").joinpath("pages")
        self._files = {each.name: each.read_bytes() for each in folder.iterdir()}
        self._files[_BOARD_OF_TICKET] = self._files["board.html"].replace(_HIDDEN, _SHOWN)
        self.routes = [
            Route(DASHBOARD_PATH, self._page),
            Route(f"{DASHBOARD_PATH}/ticket", self._ticket),
            Route(f"{DASHBOARD_PATH}/sign-out", self._sign_out),
            Route(f"{DASHBOARD_PATH}/events", self._events),
            Route(f"{DASHBOARD_PATH}/{{name}}", self._file),
        ]

    async def _page(self, request: Request) -> Response:
        """Return the dashboard, or what asks for a token. Neither holds anything of the cluster."""
        refusal = self._refusal(request)
        if refusal is None:
            by_ticket = _ticket_of(request) and not asked_of(request.scope).authorization
            return self._told(_BOARD_OF_TICKET if by_ticket else "board.html", 200)
        return self._told("sign_in.html", 401) if refusal.status == 401 else refused(refusal)

    async def _file(self, request: Request) -> Response:
        """Return what the pages consist of: the same for everybody."""
        name = request.path_params["name"]
        if name not in self._files or name.endswith(".html"):
            return PlainTextResponse("there is no such page\n", 404)
        return self._told(name, 200)

    def _told(self, name: str, status: int) -> Response:
        kind = _TYPES[name[name.rindex(".") :]]
        headers = _PAGE_HEADERS if kind == "text/html" else {}
        return Response(self._files[name], status, headers, media_type=kind)

    async def _ticket(self, request: Request) -> Response:
        """Give a ticket for a token. The header in which that comes is one that no other origin may send."""
        asked = asked_of(request.scope)
        if (refusal := refusal_of(self._guard, request, asked)) is not None:
            return refused(refusal)
        ticket = self._tickets.issue(asked.authorization)
        cookie = set_cookie(ticket, _port(request), secured=self._guard.context is not None)
        return Response(status_code=204, headers={"set-cookie": cookie})

    async def _sign_out(self, request: Request) -> Response:
        """End the ticket of a browser, and with it the streams that it has open. Harmless to repeat."""
        if _ASKED_BY_PAGE not in request.headers:
            return PlainTextResponse(f"the dashboard's own page does that, with {_ASKED_BY_PAGE}\n", 403)
        self._tickets.end(_ticket_of(request))
        cookie = drop_cookie(_port(request), secured=self._guard.context is not None)
        return Response(status_code=204, headers={"set-cookie": cookie})

    def _refusal(self, request: Request) -> Refusal | None:
        """Return why who asks may not watch; None if it may, by whatever counts elsewhere, or by a ticket."""
        asked = asked_of(request.scope)
        ticket = _ticket_of(request)
        if asked.authorization or not ticket:
            return refusal_of(self._guard, request, asked)
        authorization = self._tickets.authorization(ticket)
        judged = replace(asked, authorization=authorization)
        # A ticket was given for a token that counted: who comes with one guesses nothing.
        refusal = refusal_of(self._guard, request, judged, counted_once=True)
        if refusal is None or refusal.status != 403 or not authorization:
            return refusal
        # The token counts no more.
        self._tickets.end(ticket)
        return refusal_of(self._guard, request, asked)

    async def _events(self, request: Request) -> "Response | _Stream":
        if (refusal := self._refusal(request)) is not None:
            return refused(refusal)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self._viewers >= VIEWERS_MAX:
            return PlainTextResponse(f"{VIEWERS_MAX} pages show this already: close one\n", 503)
        self._viewers += 1  # here, so that no two are the last one
        return _Stream(self, request)

    async def watch(self, request: Request, send: Send) -> None:
        """Send what changes, until who watches may not any more."""
        sent, data = Sent(), greeting()
        while True:
            await self._live.next()
            if self._refusal(request) is not None:
                return
            data += event("look", self._live.news(sent))
            await send({"type": "http.response.body", "body": data, "more_body": True})
            data = b""

    def leave(self) -> None:
        """Make room for another viewer."""
        self._viewers -= 1


class _Stream:
    """The answer to one viewer."""

    def __init__(self, dashboard: Dashboard, request: Request) -> None:
        self._dashboard = dashboard
        self._request = request

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._stream(receive, send)
        finally:
            self._dashboard.leave()

    async def _stream(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with open_tasks() as tasks:
            tasks.start_soon(_end_when_gone, receive, tasks.cancel_scope)
            await self._dashboard.watch(self._request, send)
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()


async def _end_when_gone(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _ticket_of(request: Request) -> str:
    return ticket_in(request.headers.get("cookie", ""), _port(request))


def _port(request: Request) -> int:
    return int(request.scope["server"][1])
