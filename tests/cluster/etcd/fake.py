"""A fake of etcd and its JSON gateway: one store, members in front of it, and faults that are asked for.

It does what the real one was seen to do (3.4.23, 3.5.1): what is zero, false or empty is left out of a reply,
numbers are strings, a lease that is over answers a renewal without a TTL, and a watch that is canceled stays
open. `Fault` says what real members do not do on demand.
"""

import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Literal

import httpx
import trio

from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.gateway import Transacted, decoded, transaction_body
from greenroom_cluster.coordination.etcd.leadership import LeadershipEffect, LeadershipInput

Fault = Literal["applied, no answer", "no answer", "unavailable", "lessor moved", "empty reply", "cut off"]

_DENIED = {"error": "etcdserver: invalid auth token", "message": "etcdserver: invalid auth token", "code": 16}


class LeaseGone(Exception):  # noqa: N818  it is an answer
    """A key is to go with a lease that is over."""


class Store:
    """Keys with their revisions, leases that end by the clock of `now`, and a token of one user."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.now = now
        self.revision = 1
        self.term = 2
        self.compacted = 0
        self.keys: dict[bytes, dict[str, Any]] = {}
        self.leases: dict[int, tuple[int, float]] = {}
        self.history: list[dict[str, Any]] = []
        self.watching: list[tuple[bytes, bytes, trio.MemorySendChannel[bytes]]] = []
        self.user: tuple[str, str] | None = None
        self.is_forbidden = False
        self.tokens: set[str] = set()
        self._lease = 100

    def header(self) -> dict[str, str]:
        return {"cluster_id": "7", "revision": str(self.revision), "raft_term": str(self.term)}

    # --- what is asked -----------------------------------------------------------------------------------

    def range(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [self._shown(key) for key in self._matching(body)]
        return {"header": self.header(), **({"kvs": found, "count": str(len(found))} if found else {})}

    def txn(self, body: dict[str, Any]) -> dict[str, Any]:
        """Raises LeaseGone if a key is to go with a lease that is over."""
        held = all(self._holds(each) for each in body.get("compare", []))
        operations = body.get("success" if held else "failure", [])
        leases = [int(each["request_put"].get("lease", 0)) for each in operations if "request_put" in each]
        if any(lease and lease not in self.leases for lease in leases):
            raise LeaseGone
        if any("request_range" not in each for each in operations):
            self.revision += 1
        responses = [self._done(each) for each in operations]
        answer: dict[str, Any] = {"header": self.header()}
        if held:
            answer["succeeded"] = True
        if responses:
            answer["responses"] = responses
        return answer

    def grant(self, body: dict[str, Any]) -> dict[str, Any]:
        self._lease += 1
        seconds = max(2, int(body["TTL"]))
        self.leases[self._lease] = (seconds, self.now() + seconds)
        return {"header": self.header(), "ID": str(self._lease), "TTL": str(seconds)}

    def keep_alive(self, body: dict[str, Any]) -> dict[str, Any]:
        lease = int(body["ID"])
        self.expire()
        kept = {"header": self.header(), "ID": str(lease)}
        if lease in self.leases:
            seconds = self.leases[lease][0]
            self.leases[lease] = (seconds, self.now() + seconds)
            kept["TTL"] = str(seconds)
        return {"result": kept}

    def revoke(self, body: dict[str, Any]) -> dict[str, Any] | None:
        lease = int(body["ID"])
        if lease not in self.leases:
            return None
        self._end(lease)
        return {"header": self.header()}

    def expire(self) -> None:
        """End the leases whose time is over."""
        for lease, (_, until) in list(self.leases.items()):
            if self.now() >= until:
                self._end(lease)

    # --- keys --------------------------------------------------------------------------------------------

    def _end(self, lease: int) -> None:
        del self.leases[lease]
        for key in [key for key, held in self.keys.items() if held["lease"] == lease]:
            self.revision += 1
            self._remove(key)

    def _matching(self, body: dict[str, Any]) -> list[bytes]:
        first, end = (base64.b64decode(body.get(name, "")) for name in ("key", "range_end"))
        self.expire()
        return sorted(key for key in self.keys if (first <= key < end if end else key == first))

    def _shown(self, key: bytes) -> dict[str, str]:
        held = self.keys[key]
        numbers = {name: str(held[name]) for name in ("create_revision", "mod_revision", "lease")}
        texts = {"key": base64.b64encode(key).decode(), "value": base64.b64encode(held["value"]).decode()}
        return {name: value for name, value in {**texts, **numbers}.items() if value not in ("", "0")}

    def _holds(self, compare: dict[str, Any]) -> bool:
        self.expire()
        held = self.keys.get(base64.b64decode(compare["key"]), {})
        name = "create_revision" if compare["target"] == "CREATE" else "mod_revision"
        return int(held.get(name, 0)) == int(compare[name])

    def _done(self, operation: dict[str, Any]) -> dict[str, Any]:
        ((kind, body),) = operation.items()
        if kind == "request_range":
            return {"response_range": self.range(body)}
        if kind == "request_delete_range":
            for key in self._matching(body):
                self._remove(key)
            return {"response_delete_range": {}}
        key = base64.b64decode(body["key"])
        created = self.keys.get(key, {"create_revision": self.revision})["create_revision"]
        self.keys[key] = {
            "value": base64.b64decode(body["value"]),
            "create_revision": created,
            "mod_revision": self.revision,
            "lease": int(body.get("lease", 0)),
        }
        self._tell(key, {"kv": self._shown(key)})
        return {"response_put": {}}

    def _remove(self, key: bytes) -> None:
        del self.keys[key]
        gone = {"key": base64.b64encode(key).decode(), "mod_revision": str(self.revision)}
        self._tell(key, {"type": "DELETE", "kv": gone})

    def _tell(self, key: bytes, event: dict[str, Any]) -> None:
        self.history.append({"key": key, "revision": self.revision, "event": event})
        for first, end, channel in self.watching:
            if first <= key < end if end else key == first:
                with suppress(trio.BrokenResourceError):  # who watched has left
                    channel.send_nowait(self.part({"events": [event]}))

    def part(self, content: dict[str, Any]) -> bytes:
        """Return one line of a watch."""
        return json.dumps({"result": {"header": self.header(), **content}}).encode() + b"\n"


def carried_out(store: Store, effect: LeadershipEffect) -> LeadershipInput | None:
    """Have etcd do what a leadership asks; return its answer, None if there is none."""
    match effect:
        case ls.Grant(number=number, ttl_seconds=ttl):
            given = store.grant({"TTL": ttl})
            return ls.Leased(number, int(given["ID"]), int(given["TTL"]))
        case ls.Renew(number=number, lease=lease):
            kept = store.keep_alive({"ID": lease})["result"]
            return ls.Leased(number, lease, int(kept.get("TTL", 0)))
        case ls.Revoke(lease=lease):
            store.revoke({"ID": lease})
            return None
        case ls.Transact(number=number, compares=compares, success=success, failure=failure):
            body = json.loads(transaction_body(compares, success, failure))
            return ls.Answered(number, decoded(json.dumps(store.txn(body)).encode(), Transacted))
    raise AssertionError(effect)


class Gateway(httpx.AsyncBaseTransport):
    """The gateways of all members: what is sent to any of them comes here.

    `faults` are taken from the left, one for each request that is not for a version; `down` are members that
    cannot be connected to; `slow` are those who answer so many seconds later, though they do at once what
    they are asked; `asked` lists where requests went.
    """

    def __init__(self, store: Store, version: str = "3.4.23") -> None:
        self.store = store
        self.version = version
        self.faults: deque[Fault] = deque()
        self.down: set[str] = set()
        self.slow: dict[str, float] = {}
        self.asked: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        member = f"{request.url.host}:{request.url.port}"
        if member in self.down:
            raise httpx.ConnectError("refused", request=request)
        answer = await self._carried_out(member, request)
        seconds, patience = self.slow.get(member, 0.0), request.extensions["timeout"]["read"]
        await trio.sleep(min(seconds, patience))
        if seconds > patience:
            raise httpx.ReadTimeout("", request=request)
        return answer

    async def _carried_out(self, member: str, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/version":
            return httpx.Response(200, json={"etcdserver": self.version, "etcdcluster": "3.4.0"})
        self.asked.append((member, path))
        fault = self.faults.popleft() if self.faults else None
        if fault == "no answer":
            raise httpx.ReadTimeout("", request=request)
        if fault == "empty reply":
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response.", request=request
            )
        if fault == "unavailable":
            return _failed(14, "etcdserver: request timed out")
        if fault == "lessor moved":
            return _failed(2, "etcdserver: not primary lessor")
        body = json.loads(await request.aread())
        if path != "/v3/auth/authenticate" and self.store.user is not None:
            token = request.headers.get("Authorization", "")
            if not token:
                return _failed(3, "etcdserver: user name is empty")
            if token not in self.store.tokens:
                return httpx.Response(401, json=_DENIED)
            if self.store.is_forbidden:
                return _failed(7, "etcdserver: permission denied", 403)
        answer = self._answer(request, path, body)
        if fault == "applied, no answer":
            raise httpx.ReadTimeout("", request=request)
        if fault == "cut off":
            content = json.loads(answer.content)
            content["header"]["raft_term"] = "1"
            return httpx.Response(200, json=content)
        return answer

    def _answer(self, request: httpx.Request, path: str, body: dict[str, Any]) -> httpx.Response:
        match path:
            case "/v3/kv/range":
                return httpx.Response(200, json=self.store.range(body))
            case "/v3/kv/txn":
                try:
                    return httpx.Response(200, json=self.store.txn(body))
                except LeaseGone:
                    return _failed(5, "etcdserver: requested lease not found", 404)
            case "/v3/lease/grant":
                return httpx.Response(200, json=self.store.grant(body))
            case "/v3/lease/keepalive":
                return httpx.Response(200, json=self.store.keep_alive(body))
            case "/v3/lease/revoke":
                done = self.store.revoke(body)
                return (
                    httpx.Response(200, json=done)
                    if done is not None
                    else _failed(5, "etcdserver: requested lease not found", 404)
                )
            case "/v3/watch":
                assert request.headers["Grpc-Metadata-hasleader"] == "true"
                return httpx.Response(200, stream=self._watch(body["create_request"]))
            case "/v3/auth/authenticate":
                if self.store.user != (body["name"], body["password"]):
                    return _failed(3, "etcdserver: authentication failed, invalid user ID or password")
                token = f"token{len(self.store.tokens)}"
                self.store.tokens.add(token)
                return httpx.Response(200, json={"header": self.store.header(), "token": token})
        return httpx.Response(404, text="Not Found")

    def _watch(self, body: dict[str, Any]) -> "_Lines":
        first, end = (base64.b64decode(body.get(name, "")) for name in ("key", "range_end"))
        start = int(body.get("start_revision", 0))
        send, receive = trio.open_memory_channel[bytes](1000)
        send.send_nowait(self.store.part({"created": True}))
        if 0 < start <= self.store.compacted:
            gone = {"canceled": True, "compact_revision": str(self.store.compacted)}
            send.send_nowait(self.store.part(gone))
        else:
            for each in self.store.history:
                if 0 < start <= each["revision"] and (
                    first <= each["key"] < end if end else each["key"] == first
                ):
                    send.send_nowait(self.store.part({"events": [each["event"]]}))
            self.store.watching.append((first, end, send))
        return _Lines(receive, send)


class _Lines(httpx.AsyncByteStream):
    """What comes of a watch. It stays open until the reader closes it, or the store ends it."""

    def __init__(
        self, receive: trio.MemoryReceiveChannel[bytes], send: trio.MemorySendChannel[bytes]
    ) -> None:
        self._receive = receive
        self.send = send
        """Held, so that a canceled watch keeps its connection."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for line in self._receive:
            yield line

    async def aclose(self) -> None:
        self._receive.close()


def _failed(code: int, text: str, status: int = 503) -> httpx.Response:
    return httpx.Response(status, json={"error": text, "message": text, "code": code})
