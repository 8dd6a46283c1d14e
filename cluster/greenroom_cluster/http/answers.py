"""Requests as the guard judges them, and what those are answered that it refuses."""

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from greenroom_cluster.http.door import Asked, Refusal
from greenroom_cluster.http.guard import Guard
from greenroom_cluster.http.visitor import Visitor
from greenroom_cluster.runtime.log_limits import LimitedLog

_limited_log = LimitedLog(structlog.get_logger(__name__))


def asked_of(scope: Scope) -> Asked:
    """Return what of a request decides whether it is answered."""
    headers = Headers(scope=scope)
    return Asked(
        scope["method"],
        headers.get("host", ""),
        headers.get("sec-fetch-site", ""),
        headers.get("origin", ""),
        headers.get("authorization", ""),
    )


def refusal_of(guard: Guard, request: Request, asked: Asked, *, counted_once: bool = False) -> Refusal | None:
    """Return why who asks is not shown the state of the cluster; None if it is. See `Guard`."""
    visitor: Visitor = request.scope["state"]["visitor"]
    host = "" if request.client is None else request.client.host
    refusal = guard.objection_to_looking(asked, visitor.proven, host, counted_once=counted_once)
    if refusal is not None:
        _limited_log.info("http_refused", remote=host, reason=refusal.reason)
    return refusal


def refused(refusal: Refusal) -> Response:
    """Return the answer to who is refused."""
    headers = {"www-authenticate": 'Bearer realm="greenroom"'} if refusal.status == 401 else {}
    return PlainTextResponse(f"{refusal.reason}\n", refusal.status, headers)
