"""How a browser talks to the workers of the shop: requests, and what their answers mean."""

from typing import Any, Literal, NamedTuple, TypeAlias

import httpx
import trio

from greenroom_cluster.demo.ledger import Value
from greenroom_cluster.demo.shop import COOKIE
from greenroom_cluster.demo.verdict import Verdict

# Longer than the store's own deadline, so that a truthful 503 comes before it.
REQUEST_SECONDS = 12.0
PATIENCE_SECONDS = 20.0

Meaning: TypeAlias = Literal["done", "no-session", "not-done", "unknown"]


class Answer(NamedTuple):
    """What a request came to. `cookie` is the session id that the shop gave with it, if any."""

    meaning: Meaning
    detail: str
    shown: dict[str, Value]
    cookie: str | None = None

    def __repr__(self) -> str:
        return f"<Answer {self.meaning} {self.detail}>"


class Shopfront:
    """The workers of the shop as seen from outside. `workers` are their base addresses.

    Who must know asks again for `patience_seconds`: longer than the shop may be without its cluster.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        workers: tuple[str, ...],
        verdict: Verdict,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._verdict = verdict
        self.workers = workers
        self.patience_seconds = patience_seconds

    async def get(self, worker: int, path: str, cookie: str | None) -> Answer:
        """Fetch a page through a worker (any number: they are taken in turn)."""
        return await self._send(worker, "GET", path, cookie, None)

    async def post(self, worker: int, path: str, cookie: str | None, **form: str) -> Answer:
        """Send a form through a worker."""
        return await self._send(worker, "POST", path, cookie, form)

    async def _send(
        self, worker: int, method: str, path: str, cookie: str | None, form: dict[str, str] | None
    ) -> Answer:
        headers = {"cookie": f"{COOKIE}={cookie}"} if cookie is not None else {}
        url = self.workers[worker % len(self.workers)] + path
        begun = trio.current_time()
        try:
            response = await self._client.request(method, url, data=form, headers=headers)
            answer = understood(response)
        except httpx.ConnectError as error:
            answer = Answer("not-done", f"{type(error).__name__}", {})
        except httpx.TransportError as error:
            answer = Answer("unknown", f"{type(error).__name__}", {})
        self._verdict.request(trio.current_time() - begun)
        if answer.meaning in {"not-done", "unknown"}:
            self._verdict.user_error(f"{method} {path}: {answer.meaning}, {answer.detail}")
        return answer


def understood(response: httpx.Response) -> Answer:
    """Return what a response means to a user who must know what was done."""
    body: dict[str, Any] = {}
    if response.headers.get("content-type", "").startswith("application/json"):
        body = response.json()
    if response.status_code == httpx.codes.OK:
        return Answer("done", "200", cells_of(body), response.cookies.get(COOKIE))
    detail = f"{response.status_code} {body.get('error', '')}".strip()
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return Answer("no-session", detail, {})
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and body.get("error") == "unavailable":
        return Answer("not-done", detail, {})
    if response.status_code == httpx.codes.BAD_REQUEST:
        return Answer("not-done", detail, {})
    return Answer("unknown", detail, {})


def cells_of(body: dict[str, Any]) -> dict[str, Value]:
    """Return the cells of a session as the ledger names them."""
    cells: dict[str, Value] = {f"cart/{sku}": quantity for sku, quantity in body.get("cart", {}).items()}
    if body.get("note") is not None:
        cells["note"] = body["note"]
    if body.get("user") is not None:
        cells["user"] = body["user"]
    return cells
