"""A simulated etcd: members on machines of their own, and one store.

A request to a member is carried out once the member that leads has a majority and is reached. It waits for
that as long as etcd does, and may be carried out when nobody awaits it any more. Another member is elected
when the one that leads has lost its majority for about a second; then every lease begins anew. A lease that
is over goes with the next look, twice a second. A watch ends when its member no longer reaches who leads.
"""

from functools import partial
from random import Random
from typing import Protocol

import msgspec

from simulations.kernel import etcd_store as es
from simulations.kernel.etcd_store import Answer, EtcdStore, LeaseGoneError, Transaction
from simulations.kernel.network import End, Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, SECOND

MEMBERS = 3
PORT = 2379
_TICK_NS = 100 * MILLISECOND
_LOOK_TICKS = 5
_RETRY_NS = 100 * MILLISECOND
_ANSWER_NS = 5 * SECOND
_FORGET_NS = 7 * SECOND
_OK, _UNAVAILABLE, _NOT_FOUND = 200, 503, 404
_encode = msgspec.json.Encoder().encode


class Ask(msgspec.Struct, frozen=True):
    """A request as it crosses the network."""

    path: str
    body: bytes


class Told(msgspec.Struct, frozen=True):
    """A reply, or a part of a watch, as it crosses the network."""

    status: int
    body: bytes


class Judge(Protocol):
    """Judges what etcd carries out."""

    def carried_out(self, writer: Process | None, asked: Transaction, answer: Answer) -> None:
        """See a transaction that was carried out, and who has sent it."""


class _Request:
    __slots__ = ("ask", "asked_ns", "end", "member", "told")

    def __init__(self, member: "EtcdMember", end: End, ask: Ask, asked_ns: int) -> None:
        self.member = member
        self.end = end
        self.ask = ask
        self.asked_ns = asked_ns
        self.told = False


class EtcdMember(Process):
    """One run of a member. While it is `behind` its watches tell nothing yet, while `silent` nothing at all.

    What it is asked else goes through who leads, and is never old.
    """

    def __init__(self, etcd: "Etcd", number: int, random: Random) -> None:
        network = etcd.network
        super().__init__(network, network.machine(f"etcd{number}"), f"etcd {number}", random)
        self.number = number
        self.behind = False
        self.silent = False
        self.watches: dict[End, bytes] = {}
        self._etcd = etcd
        network.listen(self, f"{self.machine.name}:{PORT}", self._accept)

    def _accept(self, end: End) -> None:
        end.on_data = partial(self._received, end)
        end.on_closed = lambda _: self._closed(end)

    def _received(self, end: End, ask: Ask) -> None:
        if ask.path == "watch":
            self.watches[end] = es.decode_watch(ask.body).create_request.key
            self.tell_watch(end, {"created": True})
        else:
            self._etcd.submit(self, end, ask)

    def _closed(self, end: End) -> None:
        self.watches.pop(end, None)

    def reply(self, end: End, told: Told) -> None:
        """Answer on a connection."""
        self.network.send(end, told)

    def tell_watch(self, end: End, content: dict[str, object]) -> None:
        """Send a part of a watch."""
        part = {"result": {"header": self._etcd.store.header(), **content}}
        self.network.send(end, Told(_OK, _encode(part)))

    def changed(self, key: bytes) -> None:
        """Tell the watches of a key that it has changed."""
        for end, watched in list(self.watches.items()):
            if watched == key and not self.silent and not self.behind:
                self.tell_watch(end, {"events": [{"kv": es.KeyValue(key)}]})

    def catch_up(self) -> None:
        """Hear what was missed."""
        self.behind = False
        for key in set(self.watches.values()):
            self.changed(key)

    def end_watches(self) -> None:
        """End all watches: this member knows of no leader."""
        for end in list(self.watches):
            self.network.close(end, reset=False)
        self.watches.clear()


class Etcd:
    """All members. `commit_ns` is how long what is written takes until a majority has it on disk.

    Of the next transactions that write, so many get no answer (`unanswered`), and so many are carried out
    `late_ns` later (`late`). Whoever wrote is told to `judge` with each transaction that was carried out.
    """

    def __init__(self, network: Network, random: Random, rates: tuple[int, ...]) -> None:
        self.network = network
        self.store = EtcdStore()
        self.commit_ns = MILLISECOND
        self.unanswered = 0
        self.late = 0
        self.late_ns = 0
        self.judge: Judge | None = None
        self._random = random
        self._leader = 0
        self._elects_ns = 0
        self._ticks = 0
        for number in range(MEMBERS):
            network.machine(f"etcd{number}", rates[number] if number < len(rates) else 1_000_000)
        self.members = [EtcdMember(self, number, random) for number in range(MEMBERS)]
        self.store.on_change = self._changed
        network.timeline.after(_TICK_NS, self._tick)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the members listen."""
        return tuple(f"{member.machine.name}:{PORT}" for member in self.members)

    @property
    def leader(self) -> EtcdMember:
        """The member that leads, or did."""
        return self.members[self._leader]

    def start(self, number: int) -> None:
        """Start a member again."""
        if not self.members[number].alive:
            self.members[number] = EtcdMember(self, number, self._random)

    def start_all(self) -> None:
        """Start each member that does not run."""
        for member in self.members:
            self.start(member.number)

    def heal(self) -> None:
        """Take back all that was asked for by hand, and start who does not run."""
        self.unanswered = self.late = 0
        for member in self.members:
            member.silent = False
            if member.behind:
                member.catch_up()
        self.start_all()

    # --- who leads ---------------------------------------------------------------------------------------

    def _connected(self, one: EtcdMember, other: EtcdMember) -> bool:
        if not other.alive or other.paused:
            return False
        here, there = one.machine.name, other.machine.name
        return not self.network.is_cut(here, there) and not self.network.is_cut(there, here)

    def _has_majority(self, member: EtcdMember) -> bool:
        if not member.alive or member.paused:
            return False
        return sum(self._connected(member, each) for each in self.members) > MEMBERS // 2

    def _reaches_leader(self, member: EtcdMember) -> bool:
        return member.alive and self._connected(member, self.leader) and self._has_majority(self.leader)

    def _tick(self) -> None:
        timeline = self.network.timeline
        timeline.after(_TICK_NS, self._tick)
        self._ticks += 1
        if self._has_majority(self.leader):
            self._elects_ns = 0
            if self._ticks % _LOOK_TICKS == 0:
                self.store.expire(self.leader.machine.now_ns())
        elif not self._elects_ns:
            self._elects_ns = timeline.now + int(self._random.uniform(0.9, 1.5) * SECOND)
        elif timeline.now >= self._elects_ns:
            self._elect([each for each in self.members if self._has_majority(each)])
        for member in self.members:
            if member.alive and not member.paused and member.watches and not self._reaches_leader(member):
                member.end_watches()

    def elect_another(self) -> None:
        """Have another member lead, if there is one that can."""
        self._elect([each for each in self.members if each is not self.leader and self._has_majority(each)])

    def _elect(self, able: list[EtcdMember]) -> None:
        if able:
            self._leader, self._elects_ns = self._random.choice(able).number, 0
            self.store.elect(self.leader.machine.now_ns())
            self.network.happened["etcd elected another leader"] += 1

    # --- requests ----------------------------------------------------------------------------------------

    def submit(self, member: EtcdMember, end: End, ask: Ask) -> None:
        """Carry a request out, some time."""
        delay = self.commit_ns + int(self._random.random() * MILLISECOND)
        if self.late and _writes(ask):
            self.late -= 1
            delay += self.late_ns
            self.network.happened["transaction carried out late"] += 1
        request = _Request(member, end, ask, self.network.timeline.now)
        self.network.timeline.after(delay, self._commit, request)

    def _commit(self, request: _Request) -> None:
        member, timeline = request.member, self.network.timeline
        if not self._reaches_leader(member):
            waited_ns = timeline.now - request.asked_ns
            if waited_ns > _ANSWER_NS and not request.told:
                request.told = True
                failure = {"error": "etcdserver: request timed out", "code": 14}
                member.tell(0, member.reply, request.end, Told(_UNAVAILABLE, _encode(failure)))
            if waited_ns <= _FORGET_NS:
                timeline.after(_RETRY_NS, self._commit, request)
            return
        told = self._carry_out(request)
        if request.told:
            return
        if self.unanswered and _writes(request.ask):
            self.unanswered -= 1
            self.network.happened["transaction carried out, no answer"] += 1
            return
        member.tell(0, member.reply, request.end, told)

    def _carry_out(self, request: _Request) -> Told:
        path, body, now_ns = request.ask.path, request.ask.body, self.leader.machine.now_ns()
        match path:
            case "kv/txn":
                return self._transact(request)
            case "lease/grant":
                return Told(_OK, _encode(self.store.grant(now_ns, es.decode_lease(body).ttl_seconds)))
            case "lease/keepalive":
                kept = self.store.keep_alive(now_ns, es.decode_lease(body).lease)
                return Told(_OK, _encode({"result": kept}))
            case _:
                self.store.revoke(es.decode_lease(body).lease)
                return Told(_OK, _encode({"header": self.store.header()}))

    def _transact(self, request: _Request) -> Told:
        asked = es.decode_transaction(request.ask.body)
        try:
            answer = self.store.transact(asked)
        except LeaseGoneError:
            failure = {"error": "etcdserver: requested lease not found", "code": 5}
            return Told(_NOT_FOUND, _encode(failure))
        if self.judge is not None:
            writer = request.end.peer.process
            self.judge.carried_out(writer if isinstance(writer, Process) else None, asked, answer)
        return Told(_OK, _encode(answer))

    def _changed(self, key: bytes) -> None:
        for member in self.members:
            member.tell(0, member.changed, key)


def _writes(ask: Ask) -> bool:
    return ask.path == "kv/txn" and b'"request_put"' in ask.body
