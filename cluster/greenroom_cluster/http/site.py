"""The pages of an HTTP port: Starlette's routes, and Hypercorn's handling of a connection under trio.

Hypercorn's own `serve` accepts any number of connections, and tells an application nothing of certificates.
So the port accepts, and each connection is handed to the `TCPServer` that `serve` hands it to.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from greenroom.errors import UnavailableError, UsageError
from greenroom_cluster.http.answers import asked_of, refusal_of, refused
from greenroom_cluster.http.dashboard import Dashboard
from greenroom_cluster.http.exposition import expose
from greenroom_cluster.http.guard import Guard
from greenroom_cluster.http.looks import Looks
from greenroom_cluster.http.view import View
from greenroom_cluster.http.visitor import Visitor
from greenroom_cluster.runtime.listener import describe_error
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.status_document import status_document

_HEAD_BYTES_MAX = 16 * 1024
_IDLE_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)
"""What every answer has, unless its page says otherwise."""

_limited_log = LimitedLog(structlog.get_logger(__name__))


class Site:
    """The pages of one port."""

    def __init__(self, view: View, guard: Guard) -> None:
        self._view = view
        self._guard = guard
        self._looks = Looks(view)
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/status.json", self._status),
            Route("/metrics", self._metrics),
            *Dashboard(self._looks, guard).routes,
        ]
        gate: Any = _Gate(Starlette(routes=routes), guard)  # typed by Starlette, not by Hypercorn
        self._app = wrap_app(gate, 0, "asgi")
        self._config = Config()
        self._config.errorlog = self._config.accesslog = None
        self._config.include_server_header = False
        self._config.h11_max_incomplete_size = self._config.h2_max_header_list_size = _HEAD_BYTES_MAX
        self._config.h2_max_concurrent_streams = 4
        self._config.keep_alive_timeout = _IDLE_SECONDS

    async def serve(self, visitor: Visitor) -> None:
        """Serve one connection to its end."""
        told = ConnectionState({"visitor": visitor})
        stream: Any = visitor  # it uses no more of a stream than a visitor has
        await TCPServer(self._app, self._config, WorkerContext(None), told, stream)

    # --- pages for anybody ---------------------------------------------------------------------------------

    async def _livez(self, _request: Request) -> Response:
        """Say that the loop of this process runs, for that is what answers."""
        return PlainTextResponse("live\n")

    async def _readyz(self, request: Request) -> Response:
        """Say whether this process serves; with `cluster`, also whether every shard is whole."""
        told = self._view.objection()
        if not told and "cluster" in request.query_params:
            told = await self._cluster_objection()
        return PlainTextResponse(f"not ready: {told}\n", 503) if told else PlainTextResponse("ready\n")

    async def _cluster_objection(self) -> str:
        try:
            with trio.fail_after(_ANSWER_SECONDS):
                found = await self._looks.look()
        except (UnavailableError, UsageError, trio.TooSlowError):
            return "the state of the cluster is not known"
        return "" if found.healthy else "not every shard has all its replicas, apart from each other"

    # --- pages for operators and observers -----------------------------------------------------------------

    async def _status(self, request: Request) -> Response:
        if (refusal := refusal_of(self._guard, request, asked_of(request.scope))) is not None:
            return refused(refusal)
        try:
            with trio.fail_after(_ANSWER_SECONDS):
                found = await self._looks.look()
        except (UnavailableError, UsageError) as error:
            return _json({"healthy": False, "error": str(error)}, 503)
        except trio.TooSlowError:
            return _json({"healthy": False, "error": "the cluster did not answer in time"}, 503)
        return _json(status_document(found))

    async def _metrics(self, request: Request) -> Response:
        """Return the metrics of this process and its children, for Prometheus."""
        if (refusal := refusal_of(self._guard, request, asked_of(request.scope))) is not None:
            return refused(refusal)
        told = await self._looks.readings()
        # In a thread: with hundreds of actors it takes as long as a heartbeat may be late.
        text, kind = await trio.to_thread.run_sync(expose, told, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})


class _Gate:
    """Lets an application see those requests only that are answered at all, and ends what fails in it."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        began = False

        async def send_with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._guard.objection(asked_of(scope))
        app: ASGIApp = self._app if refusal is None else refused(refusal)
        visitor: Visitor = scope["state"]["visitor"]
        with visitor.request():
            try:
                await app(scope, receive, send_with_headers)
            except Exception as error:  # noqa: BLE001  the failure of one page is not the process's
                _limited_log.error("http_failed", error=describe_error(error))
                if not began:
                    await PlainTextResponse("this page failed; the log says how\n", 500)(
                        scope, receive, send_with_headers
                    )


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(document) + b"\n", status, media_type="application/json")
