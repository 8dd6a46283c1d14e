"""The coordinator without its sockets: requests in, what to persist, publish and answer out.

How a server drives it, strictly one outcome after the other:

    outcome = coordinator.decide(now_ns, batch)      # or tick(now_ns), or want(plan)
    if outcome.persist is not None:
        storage.save(outcome.persist)                # one fsync a batch; a failure ends the process
        publish(wire.MapChange(outcome.delta))       # to every connection that has had its MapFull
    for response in outcome.responses:               # only now: they may rest on what was persisted
        send(response.connection, response.message)  # a MapFull makes that connection a subscriber
    log(outcome.warnings)
    plan = controller.step(now_ns, coordinator.map)  # -> coordinator.want(plan), an outcome like any other

`coordinator.map` is what was decided, so nothing read from it may leave the process before it is persisted.
Call `tick` when the clock reaches `next_deadline()`. A `wire.Goodbye` among the responses closes its
connection. `Hello` is the server's own affair, as are undecodable frames.

Restored from an older copy, a coordinator would reuse epochs. Peers say which map they know when they
subscribe and with every heartbeat; once one knows a later map than ours, everything is refused until an
operator starts a new lineage. For the same reason nobody proposes before it has subscribed.

A refusal is final: who proposes again does so under a new nonce. Else a copy of the refused message, late on
a former connection, could apply after its sender has drawn conclusions from the refusal.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta, delta_between
from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.messages import (
    Accepted,
    CoordinatorReply,
    Decided,
    Decision,
    ForgetNode,
    Heartbeat,
    Proposal,
    Propose,
    RegisterActor,
    RegisterNode,
    Rejected,
    RemoveNode,
    ReportDead,
)
from greenroom_cluster.coordination.owners import Owners
from greenroom_cluster.waiting import Waiting, awaited, on_nodes_that_are_down, waiting_shards

NEVER = (1 << 63) - 1
"""A deadline that does not come."""

_DEAD_MAX = 4096
_REFUSED_MAX = 1 << 16

Handled: TypeAlias = (
    wire.Subscribe | Propose | RegisterNode | RegisterActor | ReportDead | RemoveNode | ForgetNode | Heartbeat
)


NOT_AN_OPERATOR = (
    "only an operator may forget a node: use the greenroom forget-node of the coordinator's own release"
)


class CoordinatorSettings(msgspec.Struct, frozen=True):
    """After `node_down_seconds` without a heartbeat a node counts as down."""

    node_down_seconds: float = 2.0


class ConnectionClosed(msgspec.Struct, frozen=True):
    """In place of a message, after all others of its connection: the connection has ended."""


class Incoming(msgspec.Struct, frozen=True):
    """One message of a connection; `sender` and `role` are what the connection's hello gave."""

    connection: int
    sender: bytes
    message: Handled | ConnectionClosed
    role: str = wire.ROLE_PEER


class Response(msgspec.Struct, frozen=True):
    """Answer on that connection; dropped if it is gone."""

    connection: int
    message: CoordinatorReply


class Outcome(msgspec.Struct, frozen=True):
    """Persist, then publish `delta`, then respond, in this order. `persist` and `delta` come together."""

    persist: ClusterMap | None = None
    delta: MapDelta | None = None
    responses: tuple[Response, ...] = ()
    warnings: tuple[str, ...] = ()


class Coordinator:
    """Keeps the cluster map and decides every change of it.

    `refusal` is why everything is refused, or "".
    """

    def __init__(self, cluster_map: ClusterMap, settings: CoordinatorSettings, now_ns: int) -> None:
        self.map = cluster_map
        self.refusal = ""
        self._down_ns = round(settings.node_down_seconds * 1e9)
        self._stepped_ns = now_ns
        self._owners = Owners(cluster_map.nodes, self._down_ns, now_ns)
        self._waiting: tuple[Waiting, ...] = ()
        self._subscribed: dict[int, bytes] = {}
        self._dead: dict[bytes, None] = {}
        self._refused: dict[bytes, None] = {}

    def decide(self, now_ns: int, batch: Sequence[Incoming]) -> Outcome:
        """Decide a batch of requests in order, as one change of the map."""
        self._note_pause(now_ns)
        warnings = self._detect_newer(batch)
        if self.refusal:
            return Outcome(responses=self._refuse(batch), warnings=warnings)
        draft = Draft(self.map)
        answers: list[tuple[int, CoordinatorReply | None]] = []
        for incoming in batch:
            if isinstance(incoming.message, Heartbeat):
                self._heartbeat(now_ns, draft, incoming, incoming.message)
            elif isinstance(incoming.message, ConnectionClosed):
                self._owners.closed(incoming.connection)
                self._subscribed.pop(incoming.connection, None)
            else:
                answers.append((incoming.connection, self._answer(now_ns, draft, incoming)))
        self._mark_down(now_ns, draft)
        return self._conclude(draft, answers)

    def tick(self, now_ns: int) -> Outcome:
        """Notice nodes that fell silent. Due at `next_deadline()`; at another time it does no harm."""
        return self.decide(now_ns, ())

    def want(self, plan: Mapping[int, tuple[str, ...]]) -> Outcome:
        """Write the controller's plan into the map."""
        if self.refusal:
            return Outcome()
        draft = Draft(self.map)
        draft.want(plan)
        return self._conclude(draft, [])

    def next_deadline(self) -> int:
        """Return the time at which `tick` is due, in nanoseconds of the clock of `now_ns`."""
        if self.refusal or not any(node.state == "up" for node in self.map.nodes.values()):
            return NEVER
        return self._stepped_ns + self._down_ns // 4

    # --- requests ----------------------------------------------------------------------------------------

    def _answer(self, now_ns: int, draft: Draft, incoming: Incoming) -> CoordinatorReply | None:
        """Apply one request to the draft; None stands for the map as it will be after the batch."""
        code = ""
        match incoming.message:
            case wire.Subscribe():
                self._subscribed[incoming.connection] = incoming.sender
                return None
            case Propose():
                return self._propose(draft, incoming, incoming.message)
            case RegisterNode(request=request, node=node):
                complaint, code = self._objection(now_ns, draft, incoming, node.name, node.address)
                complaint = complaint or draft.register_node(node)
                if not complaint:
                    self._owners.heard(now_ns, incoming.sender, incoming.connection, node.name)
            case RegisterActor(request=request, actor=actor):
                complaint, code = self._foreign(now_ns, draft, incoming, actor.node)
                if actor.incarnation in self._dead:
                    complaint = complaint or "this incarnation is dead, which is final; start the actor again"
                complaint = complaint or draft.register_actor(actor)
            case ReportDead(request=request):
                complaint, code = self._report_dead(now_ns, draft, incoming, incoming.message)
            case RemoveNode(request=request, name=name):
                complaint, code = self._foreign(now_ns, draft, incoming, name)
                complaint = complaint or draft.remove_node(name)
            case ForgetNode(request=request, name=name):
                complaint = NOT_AN_OPERATOR
                if incoming.role == wire.ROLE_OPERATOR:
                    complaint = self._forget(now_ns, draft, name)
            case Heartbeat() | ConnectionClosed():
                return None
        return Rejected(request, complaint, code) if complaint else Accepted(request)

    def _objection(
        self, now_ns: int, draft: Draft, incoming: Incoming, name: str, address: str = ""
    ) -> tuple[str, str]:
        """Return why the sender may not have a name, and the code of that reason; ("", "") if it may."""
        return self._owners.objection(now_ns, incoming.sender, name, draft.nodes.get(name), address)

    def _foreign(self, now_ns: int, draft: Draft, incoming: Incoming, name: str) -> tuple[str, str]:
        """Return why the sender does not speak for a node, as `_objection` does.

        It does once it has registered that node. Where nobody has since the coordinator's start, whoever is
        first heard under the name does, from then on.
        """
        known = draft.nodes.get(name)
        if known is None or self._owners.is_owner(incoming.sender, name):
            return "", ""
        if self._owners.is_free(name):
            self._owners.heard(now_ns, incoming.sender, incoming.connection, name)
            return "", ""
        complaint = self._owners.objection(now_ns, incoming.sender, name, known)
        return complaint if complaint[0] else (f"node {name} is another's: register it first", "")

    def _report_dead(
        self, now_ns: int, draft: Draft, incoming: Incoming, message: ReportDead
    ) -> tuple[str, str]:
        """Bury these, if all that are known are the sender's own; return why not, as `_objection` does."""
        incarnations = message.incarnations
        nodes = {draft.actors[each].node for each in incarnations if each in draft.actors}
        for name in sorted(nodes):
            complaint = self._foreign(now_ns, draft, incoming, name)
            if complaint[0]:
                return complaint
        if nodes or self._owners.owns_any(incoming.sender):
            self._bury(incarnations)
            # In one map with the deaths, so that no successor learns of these alone.
            draft.suspect(incarnations, message.suspicions)
            draft.report_dead(incarnations)
            return "", ""
        return "only a node's supervisor reports deaths: register the node first", ""

    def _propose(self, draft: Draft, incoming: Incoming, message: Propose) -> CoordinatorReply:
        sender = incoming.sender
        if message.proposer != sender:
            return Rejected(
                message.request, "an actor proposes for itself only: proposer is not the hello's sender"
            )
        if self._subscribed.get(incoming.connection) != sender:
            return Rejected(message.request, "subscribe to the map first, then propose")
        decisions = tuple(self._decide_one(draft, sender, proposal) for proposal in message.proposals)
        return Decided(message.request, decisions)

    def _decide_one(self, draft: Draft, proposer: bytes, proposal: Proposal) -> Decision:
        if proposal.nonce in self._refused:
            reason = "refused: this proposal was refused before; propose again under a new nonce"
            return Decision(proposal.shard, proposal.nonce, applied=False, reason=reason)
        decision = draft.propose(proposer, proposal)
        if not decision.applied and draft.could_apply_later(proposal):
            _remember(self._refused, proposal.nonce, _REFUSED_MAX)
        return decision

    def _forget(self, now_ns: int, draft: Draft, name: str) -> str:
        silent_ns = self._owners.silence_ns(now_ns, name) if name in draft.nodes else self._down_ns
        if silent_ns < self._down_ns:
            return (
                f"node {name} was heard from {silent_ns / 1e9:.1f} s ago: stop it first, or, if the "
                f"coordinator has just started, try again in {self._down_ns / 1e9:.0f} s"
            )
        self._bury(tuple(key for key, actor in draft.actors.items() if actor.node == name))
        return draft.forget_node(name)

    def _bury(self, incarnations: tuple[bytes, ...]) -> None:
        for incarnation in incarnations:
            _remember(self._dead, incarnation, _DEAD_MAX)

    # --- heartbeats --------------------------------------------------------------------------------------

    def _heartbeat(self, now_ns: int, draft: Draft, incoming: Incoming, message: Heartbeat) -> None:
        node = draft.nodes.get(message.node)
        if node is None:
            return  # forgotten or removed: the map tells its supervisor
        if not self._owners.beat(now_ns, incoming.sender, incoming.connection, message.node):
            return  # its name was taken over: the map tells its supervisor
        if node.state == "down":
            draft.set_node_state(node.name, "up")
        if message.suspicions:
            here = (node.name, "up")
            actors = {key for key, actor in draft.actors.items() if (actor.node, actor.state) == here}
            draft.suspect(actors, message.suspicions)

    def _mark_down(self, now_ns: int, draft: Draft) -> None:
        """Silent nodes are down. One that is leaving stays so, lest a heartbeat brings it back up."""
        for node in list(draft.nodes.values()):
            if node.state == "up" and self._owners.silence_ns(now_ns, node.name) >= self._down_ns:
                draft.set_node_state(node.name, "down")
                draft.warnings.append(f"node {node.name} is down: no heartbeat for {self._down_ns / 1e9:g} s")

    def _note_pause(self, now_ns: int) -> None:
        """While this process was paused nobody was silent; heartbeats may still wait in the sockets."""
        paused_ns = now_ns - self._stepped_ns
        if paused_ns > self._down_ns // 2:
            self._owners.forgive(paused_ns)
        self._stepped_ns = now_ns

    # --- lineage -----------------------------------------------------------------------------------------

    def _detect_newer(self, batch: Sequence[Incoming]) -> tuple[str, ...]:
        """Look at all of a batch before anything of it is decided."""
        if self.refusal:
            return ()
        ours = (self.map.lineage, self.map.version)
        for incoming in batch:
            message = incoming.message
            if not isinstance(message, wire.Subscribe | Heartbeat):
                continue
            if (message.lineage, message.version) > ours:
                self.refusal = (
                    f"the coordinator's map (lineage {ours[0]}, version {ours[1]}) is older than one "
                    f"already in use (lineage {message.lineage}, version {message.version}): its directory "
                    "was emptied or restored from a copy. Put the newest directory back, or stop this "
                    "coordinator and start it once with --new-lineage --adopt-from "
                    f"{self._addresses()} added, naming nodes that run"
                )
                return (self.refusal,)
        return ()

    def _addresses(self) -> str:
        """Return the nodes that this map knows, as an example for whom to ask for the newest."""
        return ",".join(node.address for node in self.map.nodes.values()) or "HOST:PORT"

    def _refuse(self, batch: Sequence[Incoming]) -> tuple[Response, ...]:
        responses = []
        for incoming in batch:
            message = incoming.message
            if isinstance(message, ConnectionClosed):
                continue
            if isinstance(message, wire.Subscribe | Heartbeat):
                reply: CoordinatorReply = wire.Goodbye("older-map", self.refusal)
            else:
                reply = Rejected(message.request, self.refusal)
            responses.append(Response(incoming.connection, reply))
        return tuple(responses)

    # --- the outcome -------------------------------------------------------------------------------------

    def _conclude(self, draft: Draft, answers: list[tuple[int, CoordinatorReply | None]]) -> Outcome:
        before = self.map
        draft.warnings += draft.emptied()
        self.map = after = draft.finish()
        self._owners.keep(after.nodes)
        responses = tuple(
            Response(connection, wire.MapFull(after) if reply is None else reply)
            for connection, reply in answers
        )
        if after is before:
            return Outcome(responses=responses, warnings=tuple(draft.warnings))
        draft.warnings += self._waiting_news(after)
        return Outcome(after, delta_between(before, after), responses, tuple(draft.warnings))

    def _waiting_news(self, after: ClusterMap) -> list[str]:
        """Return what is new about shards that wait for nodes."""
        away = on_nodes_that_are_down(after)
        before, self._waiting = self._waiting, ()
        if away:
            nodes = (awaited(after, shard, away) for shard in range(after.shard_count))
            self._waiting = waiting_shards(after, nodes)
        if before and not self._waiting:
            return ["no shard waits for a node any more"]
        return [waiting.told() for waiting in self._waiting if waiting not in before]


def _remember(known: dict[bytes, None], key: bytes, limit: int) -> None:
    """Keep the newest keys, at most `limit` of them."""
    known.pop(key, None)
    known[key] = None
    if len(known) > limit:
        del known[next(iter(known))]
