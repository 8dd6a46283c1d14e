"""Callers that use the store as an application does, and the history of their operations.

Each written value is used once, so that a result names the write that it saw. A session keeps its user and
its routing point for life; ids change by rotation. `loosely` holds what makes sessions vanish on their own:
the end of their lifetime, or an eviction.
"""

import hashlib
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from greenroom import wire
from greenroom.codec import decode_data, encode_data
from greenroom.dialog import operations as kinds
from greenroom.errors import GreenroomError, OutcomeUnknownError, UnavailableError
from greenroom.ids import listed_as
from greenroom_cluster.shard.roles.suspension import DROPPED
from greenroom_cluster.shard.settings import HostSettings
from simulations.checks.linearizability import Operation, Reason
from simulations.checks.near import NearOracle
from simulations.cluster.clients import ClientProcess
from simulations.cluster.marks import PoisonBook
from simulations.cluster.stage import Stage
from simulations.kernel.timeline import ORIGIN_NS, WALL_ORIGIN_US
from simulations.plans.plan import Action

LIFETIME_US = 3600 * 1_000_000
_REASONS: dict[int, Reason] = {1: "exists", 2: "not_found", 3: "conflict"}
_USERS = 3
_NOBODY = "nobody"
_SLACK_SECONDS = 0.25


class Session:
    """A session over its life. `keys` are its ids, oldest first; `versions` what was last seen of each.

    `user` is None for one that may be evicted; no session is of `listed_user` then. `tenant` is 1 in the
    other namespace.
    """

    __slots__ = ("earliest_end_ns", "keys", "minted", "name", "point", "tenant", "twin", "user", "versions")

    def __init__(self, number: int, point: int, *, anonymous: bool, tenants: bool = False) -> None:
        self.name = f"s{number}"
        self.point = point
        self.tenant = number % 2 if tenants else 0
        # The number of the session that has the same digests and the same user, in the other namespace.
        self.twin = number - self.tenant
        self.user = None if anonymous else f"user-{(self.twin // 2 if tenants else number) % _USERS}"
        self.keys = [f"s{number}/0"]
        self.minted = 0
        self.versions: dict[str, int] = {}
        self.earliest_end_ns: int | None = None

    @property
    def listed_user(self) -> str:
        """Whose sessions are listed or ended in the place of this one's."""
        return _NOBODY if self.user is None else self.user


class Entry(msgspec.Struct):
    """An operation under way: its fields in the history, and its request."""

    fields: dict[str, Any]
    session: Session | None
    client: bytes
    request_id: int
    invoked_ns: int
    given_up: bool = False


class Workload:
    """The callers of all clients, working through the actions of a plan."""

    def __init__(self, stage: Stage, book: PoisonBook, near: NearOracle) -> None:
        plan = stage.plan
        self.stage = stage
        self._book = book
        self.near = near
        self.random = Random(f"{plan.seed}/workload")
        self._pages = plan.page_max < HostSettings().page_max
        self._points: list[int] = []
        self.sessions = [self._session(number) for number in range(plan.sessions)]
        self.history: list[Operation] = []
        self.refused: list[tuple[bytes, int, str]] = []
        self.acknowledged = 0
        self.answers: list[tuple[int, float]] = []
        self._values = 0
        self._digests: dict[str, bytes] = {}
        self._keys: dict[tuple[int, bytes], tuple[Session, str]] = {}
        self._open: dict[int, Entry] = {}
        self._opened = 0
        self._due_seconds = plan.deadline_seconds + _SLACK_SECONDS
        self._queues: dict[int, list[Action]] = {}
        for action in reversed(plan.actions):
            self._queues.setdefault(action.caller, []).append(action)

    def _session(self, number: int) -> Session:
        plan = self.stage.plan
        if plan.tenants and number % 2:
            return Session(number, self._points[-1], anonymous=plan.evicts, tenants=True)
        shard = number % plan.shards
        width = 65536 // plan.shards
        point = shard * width + self.random.randrange(width)
        self._points.append(point)
        anonymous = plan.evicts and number // plan.shards % 2 == 1
        return Session(number, point, anonymous=anonymous, tenants=plan.tenants)

    def start(self) -> None:
        """Let every caller begin."""
        for caller in sorted(self._queues):
            self._next(caller)

    # --- callers -----------------------------------------------------------------------------------------

    def _client(self, caller: int) -> ClientProcess:
        return self.stage.clients[caller % self.stage.plan.clients]

    def _next(self, caller: int) -> None:
        queue = self._queues[caller]
        if not queue or self.stage.healing:
            return
        client = self._client(caller)
        if not client.alive:
            self.stage.timeline.after(50_000_000, self._next, caller)
            return
        action = queue.pop()
        client.later(action.think_ms / 1e3, self._act, caller, action)

    def _act(self, caller: int, action: Action) -> None:
        client = self._client(caller)
        self._opened += 1
        number = self._opened
        entry = self._begin(client, action)
        self._open[number] = entry
        entry.fields["client"] = f"{client.name}/{caller}"

        def done(reply: wire.Reply | None, error: GreenroomError | None) -> None:
            if self._open.pop(number, None) is None:
                return
            self._record(entry, reply, error)
            if not entry.given_up:
                self._next(caller)

        client.later(self._due_seconds, self._check_ended, client, number, 1)
        if action.cancel_ms:
            client.later(action.cancel_ms / 1e3, self._give_up, number, caller)
        try:
            self._submit(client, action, entry, done)
        except UnavailableError as error:
            done(None, error)

    def _check_ended(self, client: ClientProcess, number: int, looks: int) -> None:
        """Demand that an operation ends by its deadline; pending events of its process may run before."""
        entry = self._open.get(number)
        if entry is None or not client.alive:
            return
        if looks:
            client.later(_SLACK_SECONDS, self._check_ended, client, number, looks - 1)
        else:
            late = f"{entry.fields['kind']} {entry.request_id} has not ended, long after its deadline"
            self.stage.violate("deadline", f"{client.name}: {late}")

    def _give_up(self, number: int, caller: int) -> None:
        """A caller is cancelled: it never learns the outcome."""
        entry = self._open.get(number)
        if entry is None or entry.given_up:
            return
        entry.given_up = True
        self.stage.network.happened["caller cancelled"] += 1
        self._next(caller)

    def client_died(self, client: ClientProcess, index: int) -> None:
        """Nobody learns the outcome of what this client had under way; its callers begin anew elsewhere."""
        for number, entry in list(self._open.items()):
            if entry.client == client.known_as:
                del self._open[number]
                self._append(entry, {"outcome": "unknown"})
        for caller in sorted(self._queues):
            if caller % self.stage.plan.clients == index:
                self._next(caller)

    # --- requests ----------------------------------------------------------------------------------------

    def value(self) -> str:
        """Return a value that was never written before."""
        self._values += 1
        return f"v{self._values}"

    def _data(self) -> dict[str, Any]:
        bulk = self.stage.plan.session_bytes
        if self.stage.plan.memory_bytes:
            bulk = bulk * self.random.randrange(5) // 2
        return {"v": self.value(), "bulk": "." * bulk} if bulk else {"v": self.value()}

    def shard_of(self, session: str) -> int:
        """Return the shard of the session of that name."""
        return self.stage.shard_at(self.sessions[int(session[1:])].point)

    def digest(self, session: Session, key: str) -> bytes:
        """Return the digest of that id."""
        known = self._digests.get(key)
        if known is None:
            # As that of its twin, which the other tenant has.
            text = f"{self.stage.plan.seed}/s{session.twin}/{key.partition('/')[2]}"
            known = self._digests[key] = hashlib.blake2b(text.encode(), digest_size=32).digest()
            self._keys[session.tenant, listed_as(known)] = (session, key)
        return known

    def session_of(self, client: ClientProcess, number: int) -> Session:
        """Return the session that a number stands for, among those of the client's tenant."""
        number %= len(self.sessions)
        if self.stage.plan.tenants:
            number -= (number - client.tenant) % 2
        return self.sessions[number]

    def _begin(self, client: ClientProcess, action: Action) -> Entry:
        session = self.session_of(client, action.session)
        keys = session.keys
        key = keys[-2] if action.older and len(keys) > 1 else keys[-1]
        fields: dict[str, Any] = {"kind": action.kind, "session": session.name, "key": key}
        now = self.stage.timeline.now
        return Entry(fields, session, client.known_as, client.dialog.next_id(), now)

    def _submit(self, client: ClientProcess, action: Action, entry: Entry, done: Any) -> None:
        if action.kind in ("list", "delete_by_user", "clean"):
            self._submit_fanout(client, action, entry, done)
            return
        request, kind = self._request(client, action, entry)
        if kind is kinds.GET and client.dialog.near is not None:
            client.on_received = self.near.check
            self.near.check(client)
            kept = client.hit(request.point, request.digest)
            if kept is not None:
                self.stage.network.happened["shown without asking"] += 1
                self.near.shown(client, request.digest, kept)
                done(kept, None)
                return
        client.perform(request, kind, done)

    def _submit_fanout(self, client: ClientProcess, action: Action, entry: Entry, done: Any) -> None:
        assert entry.session is not None
        low, number, user = client.dialog.low, entry.request_id, entry.session.listed_user
        if action.kind == "list":
            client.gather(wire.ListByUser(number, user, 1000, ()), kinds.LIST_BY_USER, done)
        elif action.kind == "clean":
            client.gather(wire.Clean(number, low, 0, ()), kinds.CLEAN, done)
        else:
            request = wire.DeleteByUser(number, low, 0, user, b"", ())
            client.gather(request, kinds.DELETE_BY_USER, done)

    def _absolute_ns(self, session: Session) -> int | None:
        """Return when a session is over whatever is done to it, None for most."""
        plan = self.stage.plan
        if not plan.deadline_ms or int(session.name[1:]) % 4 != 3:
            return None
        return self.stage.ready_ns + plan.deadline_ms * 1_000_000

    def _expires_us(self, action: Action, session: Session) -> int:
        """Return when the session is to end, and note from when on it may be gone."""
        now = self.stage.timeline.now
        absolute_ns = self._absolute_ns(session)
        end_ns = now + action.lifetime_ms * 1_000_000 if action.lifetime_ms else None
        if absolute_ns is not None and action.kind == "create":
            end_ns = absolute_ns if end_ns is None else min(end_ns, absolute_ns)
        if end_ns is None:
            return WALL_ORIGIN_US + LIFETIME_US
        early = end_ns - self.stage.clock_slack_ns
        known = session.earliest_end_ns
        session.earliest_end_ns = early if known is None else min(known, early)
        return _wall_us(end_ns)

    def _check_over(self, entry: Entry) -> None:
        """A session that somebody saw must not be past its absolute deadline, give or take the clocks."""
        session = entry.session
        absolute_ns = None if session is None else self._absolute_ns(session)
        if session is None or absolute_ns is None:
            return
        late_ns = entry.invoked_ns - absolute_ns
        if late_ns > 1_000_000_000 + (entry.invoked_ns - ORIGIN_NS) // 7 + self.stage.clock_lag_ns:
            self.stage.violate("expired", f"{session.name} was seen {late_ns / 1e9:.1f} s after its deadline")

    def _request(self, client: ClientProcess, action: Action, entry: Entry) -> tuple[Any, kinds.Kind]:
        session, fields, number = entry.session, entry.fields, entry.request_id
        assert session is not None
        key: str = fields["key"]
        digest, point, low = self.digest(session, key), session.point, client.dialog.low
        match action.kind:
            case "get":
                return wire.Get(number, point, digest), kinds.GET
            case "create":
                data = fields["data"] = self._data()
                expires_us = self._expires_us(action, session)
                absolute_ns = self._absolute_ns(session)
                absolute_us = None if absolute_ns is None else _wall_us(absolute_ns)
                return (
                    wire.Create(
                        number, low, 0, point, digest, session.user, WALL_ORIGIN_US, expires_us, absolute_us,
                        "", encode_data(data),
                    ),
                    kinds.CREATE,
                )  # fmt: skip
            case "update" | "update_if":
                fields["kind"] = "update"
                data = fields["data"] = self._data()
                version = None
                if action.kind == "update_if":
                    version = fields["expected_version"] = session.versions.get(key, 1)
                expires_us = self._expires_us(action, session)
                request = wire.Update(
                    number, low, 0, point, digest, session.user, expires_us, "", encode_data(data), version
                )
                return request, kinds.UPDATE if version is None else kinds.UPDATE_IF
            case "delete" | "delete_by_handle" if action.kind == "delete" or session.user is None:
                fields["kind"] = "delete"
                return wire.Delete(number, low, 0, point, digest), kinds.DELETE
            case "delete_by_handle":
                fields["kind"] = "delete"
                user = session.listed_user
                request_by_handle = wire.DeleteByHandle(number, low, 0, point, listed_as(digest), user)
                return request_by_handle, kinds.DELETE_BY_HANDLE
            case "rotate":
                # Nobody else knows the new id before this caller was told, or gave up waiting.
                session.minted += 1
                fresh = fields["new_key"] = f"{session.name}/{session.minted}"
                value = self.value()
                fields["set"] = [(["r"], value)]
                new_digest = self.digest(session, fresh)
                changed = ((("r",), encode_value(value)),)
                return (
                    wire.Rotate(number, low, 0, point, digest, new_digest, changed, (), None, None),
                    kinds.ROTATE,
                )
            case _:
                return self._patch(client, action, entry, digest)

    def _patch(
        self, client: ClientProcess, action: Action, entry: Entry, digest: bytes
    ) -> tuple[wire.Patch, kinds.Kind]:
        session, fields = entry.session, entry.fields
        assert session is not None
        fields["kind"] = "patch"
        value, path = self.value(), f"p{self.random.randrange(3)}"
        fields["set"] = [([path], value)]
        changed: tuple[wire.PathValue, ...] = (((path,), encode_value(value)),)
        if entry.request_id % 7 == 0:  # like a patch of the lifetime alone
            fields["set"], changed = [], ()
        expect: tuple[wire.PathValue, ...] = ()
        if action.kind == "patch_if":
            fields["expect"] = [(["r"], None)]
            expect = ((("r",), b""),)
        low, number = client.dialog.low, entry.request_id
        request = wire.Patch(number, low, 0, session.point, digest, changed, (), expect, None, None)
        return request, kinds.PATCH_IF if expect else kinds.PATCH

    # --- outcomes ----------------------------------------------------------------------------------------

    def _record(self, entry: Entry, reply: wire.Reply | None, error: GreenroomError | None) -> None:
        now = self.stage.timeline.now
        kind = entry.fields["kind"]
        if error is not None:
            if isinstance(error, UnavailableError):
                if kind not in ("get", "list"):
                    self.refused.append((entry.client, entry.request_id, kind))
                result: dict[str, Any] = {"outcome": "failed", "reason": "unavailable", "completed_ns": now}
            elif isinstance(error, OutcomeUnknownError):
                result = {"outcome": "unknown"}
            else:
                self.stage.violate("client", f"{kind} failed with {type(error).__name__}: {error}")
                return
            self._append(entry, result)
            return
        self.acknowledged += 1
        if entry.session is not None:
            self.answers.append((self.stage.shard_at(entry.session.point), self.stage.seconds))
        assert reply is not None
        self._append(entry, self._told(entry, reply) | {"completed_ns": now}, reply)
        if self.stage.plan.near_sessions:
            self._show(entry, reply)
            self.near.check_all()

    def _show(self, entry: Entry, reply: wire.Reply) -> None:
        """Tell the oracle of near caches what an operation has shown by its end."""
        session, kind, invoked_ns = entry.session, entry.fields["kind"], entry.invoked_ns
        assert session is not None
        digest, tenant, near = self.digest(session, entry.fields["key"]), session.tenant, self.near
        match reply:
            case wire.Written(version=version) if version:
                near.showed(tenant, digest, version)
            case wire.Session(state=wire.SessionState(version=version)):
                if kind == "rotate":
                    near.showed_none(tenant, digest, invoked_ns)
                    digest = self.digest(session, entry.fields["new_key"])
                near.showed(tenant, digest, version)
            case wire.Missing() | wire.Written() | wire.Failed(code=wire.FailureCode.NOT_FOUND):
                near.showed_none(tenant, digest, invoked_ns)
            case wire.Listing(sessions=handles):
                for handle in handles:
                    known = self._keys.get((tenant, handle.listed))
                    if known is not None:
                        near.showed(tenant, self.digest(*known), handle.version)
            case wire.Counted() if kind == "delete_by_user":
                for each in self.sessions:
                    if each.user == session.listed_user and each.tenant == tenant:
                        for key in each.keys:
                            near.showed_none(tenant, self.digest(each, key), invoked_ns)

    def _told(self, entry: Entry, reply: wire.Reply) -> dict[str, Any]:
        session, key = entry.session, entry.fields["key"]
        assert session is not None
        match reply:
            case wire.Written(version=version):
                if version:
                    session.versions[key] = version
                return {"outcome": "ok", "version": version}
            case wire.Session(state=wire.SessionState(version=version, data=data)):
                session.versions[entry.fields.get("new_key") or key] = version
                self._check_over(entry)
                return {"outcome": "ok", "version": version, "result": decode_data(data)}
            case wire.Failed(code=wire.FailureCode.INVALID, detail=detail) if detail == DROPPED:
                if (entry.client, entry.request_id) not in self._book.dropped_requests:
                    self.stage.violate("client", f"request {entry.request_id} was not dropped but is told so")
                return {"outcome": "failed", "reason": "unavailable"}
            case wire.Failed(code=wire.FailureCode.FULL):
                self.refused.append((entry.client, entry.request_id, entry.fields["kind"]))
                self.stage.network.happened["refused for want of memory"] += 1
                return {"outcome": "failed", "reason": "unavailable"}
            case wire.Failed(code=code):
                if code not in _REASONS:
                    self.stage.violate("client", f"{entry.fields['kind']} failed with code {code}")
                return {"outcome": "failed", "reason": _REASONS.get(code, "conflict")}
            case _:
                return {"outcome": "ok"}

    def _append(self, entry: Entry, result: dict[str, Any], reply: wire.Reply | None = None) -> None:
        kind = entry.fields["kind"]
        if kind == "clean":
            return
        if kind == "rotate" and result["outcome"] != "failed" and entry.session is not None:
            entry.session.keys.append(entry.fields["new_key"])
        fields = {**entry.fields, **result, "invoked_ns": entry.invoked_ns}
        if kind not in ("list", "delete_by_user"):
            self.history.append(Operation(**fields))
            return
        assert entry.session is not None
        listed: dict[str, dict[str, int]] = {}
        for handle in reply.sessions if isinstance(reply, wire.Listing) else ():
            known = self._keys.get((entry.session.tenant, handle.listed))
            if known is None or known[1] in listed.get(known[0].name, {}):
                self.stage.violate("namespaces", f"{entry.session.name} was listed with sessions of others")
                continue
            session, key = known
            listed.setdefault(session.name, {})[key] = handle.version
        for session in self.sessions:
            if session.user == entry.session.listed_user and session.tenant == entry.session.tenant:
                fields |= {"session": session.name, "key": "", "kind": "list" if kind == "list" else "purge"}
                self.history.append(Operation(**fields, listed=listed.get(session.name, {})))

    def close(self) -> list[Operation]:
        """Return the whole history; what is under way counts as unknown, and lifetimes as deletions.

        A log-out everywhere ends all ids of a session at some point; in pages, it may end each before that.
        """
        for entry in self._open.values():
            self._append(entry, {"outcome": "unknown"})
        self._open.clear()
        history = list(self.history)
        for session in self.sessions:
            ends_ns = ORIGIN_NS if session.user is None else session.earliest_end_ns
            if ends_ns is not None:
                began_ns = max(ends_ns, ORIGIN_NS)
                history += [
                    Operation(
                        client="time", session=session.name, kind="expire", key=key, invoked_ns=began_ns
                    )
                    for key in session.keys
                ]
            if self._pages:
                history += [
                    replace(purge, kind="delete", key=key)
                    for purge in self.history
                    if purge.kind == "purge" and purge.session == session.name and purge.outcome != "failed"
                    for key in session.keys
                ]
        return history


def _wall_us(true_ns: int) -> int:
    return WALL_ORIGIN_US + (true_ns - ORIGIN_NS) // 1000


def encode_value(value: str) -> bytes:
    """Return the value as a patch carries it."""
    return _encode(value)


_encode = msgspec.msgpack.Encoder().encode
