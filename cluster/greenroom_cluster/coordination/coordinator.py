"""The coordinator without its sockets: requests in; what to persist, publish and reply out.

A server drives it like this, strictly one outcome after the other:

    outcome = coordinator.decide(now_ns, batch)      # or tick(now_ns), or want(plan)
    if outcome.persist is not None:
        storage.save(outcome.persist)                # one fsync a batch; a failure ends the process
        publish(wire.MapChange(outcome.delta))       # to every connection that has had its MapFull
    for response in outcome.responses:               # only now: they may rest on what was persisted
        send(response.connection, response.message)  # a MapFull makes that connection a subscriber
    log(outcome.warnings)
    plan = controller.step(now_ns, coordinator.map)  # -> coordinator.want(plan), an outcome like any other

`coordinator.map` is the decided map: nothing read from it may leave the process before it is persisted. Call
`tick` when the clock reaches `next_deadline()`. A `wire.Goodbye` among the responses closes its connection.
The server itself handles `Hello` and undecodable frames.

A coordinator restored from an older copy would reuse epochs. So peers say which map they know when they
subscribe and with every heartbeat. When one claims a later map than ours, the nodes are asked for theirs
(`Outcome.ask`, `shown`); if one has a later map, everything is refused until an operator starts a new
lineage. A run that is not `proven` decides about a shard only once all its members were heard (`hearing`).
For the same reasons a peer must subscribe before it may propose.

A peer with the map of another cluster of the same name takes part in nothing (`foreigners`).

A refusal is final; retry under a new nonce. Otherwise a copy of the refused message, arriving late on a
former connection, could apply after its sender has acted on the refusal.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, delta_between
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.absence import EVERYBODY, Absence, Awaiting, is_away
from greenroom_cluster.coordination.claims import (
    ASKED_MAX,
    HOLD_SECONDS,
    Claims,
    is_later,
    is_of_this_cluster,
    remember,
    why_older,
)
from greenroom_cluster.coordination.draft import NO_CLAIMS, NO_MARKS, Draft
from greenroom_cluster.coordination.exchange import ConnectionClosed, Incoming, Outcome, Response
from greenroom_cluster.coordination.foreigners import Foreigners, refusal
from greenroom_cluster.coordination.hearing import Hearing
from greenroom_cluster.coordination.marks import KEPT_SECONDS, Marks
from greenroom_cluster.coordination.messages import (
    DIRECTORY_OLDER,
    OLDER_MAP,
    Accepted,
    CoordinatorReply,
    Decided,
    Decision,
    DeclareDead,
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
from greenroom_cluster.coordination.news import News
from greenroom_cluster.coordination.operators import Operators
from greenroom_cluster.coordination.owners import Owners
from greenroom_cluster.coordination.recovery import Claim, Last, Recoveries
from greenroom_cluster.coordination.rules import malformed

_DEAD_MAX = 4096
_REFUSED_MAX = 1 << 16

CLAIM_LOOKED_INTO = "you know a later map than this coordinator's: the nodes are asked for theirs; come again"
NOT_AN_OPERATOR = (
    "only an operator may forget a node: use the greenroom forget-node of the coordinator's own release"
)


class CoordinatorSettings(msgspec.Struct, frozen=True):
    """After `node_down_seconds` without a heartbeat a node counts as down.

    Marks of directories are on disk within `marks_seconds`.
    """

    node_down_seconds: float = 2.0
    marks_seconds: float = KEPT_SECONDS


class Coordinator:
    """Keeps the cluster map and decides every change of it.

    `proven`: this map is known to be the newest, as that of the run before, or as the first one. Otherwise it
    has a version that no other run has used (`genesis.renumbered`), in place of `stored_version`. `marks` are
    those of directories that were kept beside the map, by incarnation.
    """

    def __init__(
        self,
        cluster_map: ClusterMap,
        settings: CoordinatorSettings,
        now_ns: int,
        *,
        proven: bool = True,
        stored_version: int | None = None,
        marks: Mapping[bytes, int] = NO_MARKS,
    ) -> None:
        self.map = cluster_map
        self.marks = Marks(marks, cluster_map.actors, settings.marks_seconds)
        self._older = self._held = ""
        self._down_ns = round(settings.node_down_seconds * 1e9)
        self._stepped_ns = now_ns
        self._owners = Owners(cluster_map.nodes, self._down_ns, now_ns)
        self._news = News(now_ns)
        self._subscribed: dict[int, bytes] = {}
        since = cluster_map.version if stored_version is None else stored_version
        self._claims = Claims((cluster_map.lineage, since))
        self._foreigners = Foreigners(cluster_map.identity)
        self._settled_ns = now_ns + self._down_ns
        self._hearing = Hearing(cluster_map, self._settled_ns, proven=proven)
        self._unheard: dict[int, None] = {}
        self._recoveries = Recoveries()
        self._absence = Absence(self._owners, self._recoveries, cluster_map.recover_alone_seconds)
        self._look_ns = now_ns
        self._claimed: set[int] = set()
        self._heard = self._hearing.progress(now_ns)
        self._operators = Operators(self._owners, self._hearing, self._recoveries, self._down_ns)
        self._dead: dict[bytes, None] = {}
        self._refused: dict[bytes, None] = {}

    def decide(self, now_ns: int, batch: Sequence[Incoming], wall_us: int = 0) -> Outcome:
        """Decide a batch of requests in order, as one change of the map.

        `wall_us` is the wall clock for those who recover a shard; 0: they have only their own.
        """
        self._note_pause(now_ns)
        warnings = self._hear(now_ns, batch)
        if self.refusal:
            return Outcome(responses=self._refuse(batch), warnings=warnings)
        ask = self._to_ask(now_ns)
        draft = Draft(self.map, self.marks.known, wall_us)
        answers: list[tuple[int, CoordinatorReply | None]] = []
        for incoming in batch:
            if isinstance(incoming.message, ConnectionClosed):
                self._owners.closed(incoming.connection)
                self._subscribed.pop(incoming.connection, None)
                self._foreigners.closed(incoming.connection)
            elif incoming.connection in self._foreigners:
                answers.append((incoming.connection, refusal(incoming.message)))
            elif isinstance(incoming.message, Heartbeat):
                self._heartbeat(now_ns, draft, incoming, incoming.message)
            else:
                answers.append((incoming.connection, self._answer(now_ns, draft, incoming)))
        self._mark_down(now_ns, draft)
        answers += self._answer_claims(now_ns, draft)
        draft.warnings += self._unheard_news(now_ns) + self._foreigners.news(now_ns)
        draft.warnings += self._news.after_the_start(now_ns, self.map)
        outcome = self._conclude(draft, answers)
        return msgspec.structs.replace(outcome, ask=ask) if ask else outcome

    def tick(self, now_ns: int) -> Outcome:
        """Notice nodes that fell silent. Due at `next_deadline()`; harmless at other times."""
        return self.decide(now_ns, ())

    def want(self, plan: Mapping[int, tuple[str, ...]]) -> Outcome:
        """Write the controller's plan into the map."""
        if self.refusal:
            return Outcome()
        draft = Draft(self.map)
        draft.want(plan)
        return self._conclude(draft, [])

    def connected(self) -> frozenset[bytes]:
        """Return who has subscribed, and is still connected."""
        return frozenset(self._subscribed.values())

    def next_deadline(self) -> int:
        """Return the time at which `tick` is due, in nanoseconds of the clock of `now_ns`."""
        if self._held:
            return self._claims.made_ns + round(HOLD_SECONDS * 1e9)
        if self.refusal:
            return NEVER_NS
        if not any(node.state == "up" for node in self.map.nodes.values()):
            return self._news.next_deadline(self.map)
        return self._stepped_ns + self._down_ns // 4

    # --- requests ----------------------------------------------------------------------------------------

    def _answer(self, now_ns: int, draft: Draft, incoming: Incoming) -> CoordinatorReply | None:
        """Apply one request to the draft and return the reply; None: the map as it is after the batch."""
        code, told = "", tuple[str, ...]()
        match incoming.message:
            case wire.Subscribe():
                if self._claims.is_claimant(incoming.sender):
                    # A peer that may know a later map must not take ours for one.
                    return wire.Goodbye(OLDER_MAP, CLAIM_LOOKED_INTO)
                self._subscribed[incoming.connection] = incoming.sender
                return None
            case Propose():
                return self._propose(now_ns, draft, incoming, incoming.message)
            case RegisterNode(request_id=request_id, node=node):
                known = draft.nodes.get(node.name)
                complaint, code = self._owners.objection(
                    now_ns, incoming.sender, node.name, known, node.address
                )
                complaint = complaint or draft.register_node(node)
                if not complaint:
                    self._owners.heard(now_ns, incoming.sender, incoming.connection, node.name)
                    self._heard_node(incoming.sender, node.name)
            case RegisterActor(request_id=request_id, actor=actor):
                complaint, code = self._foreign(now_ns, draft, incoming, actor.node)
                if actor.incarnation in self._dead:
                    complaint = complaint or "this incarnation is dead, which is final; start the actor again"
                if not complaint:
                    complaint, code = self._register_actor(draft, actor)
            case ReportDead(request_id=request_id):
                complaint, code = self._report_dead(now_ns, draft, incoming, incoming.message)
            case RemoveNode(request_id=request_id, name=name):
                complaint, code = self._foreign(now_ns, draft, incoming, name)
                complaint = complaint or draft.remove_node(name)
            case ForgetNode(request_id=request_id) | DeclareDead(request_id=request_id):
                complaint = NOT_AN_OPERATOR
                if incoming.role == wire.ROLE_OPERATOR:
                    complaint, told = self._operators.carry_out(now_ns, draft, incoming.message)
                    self._bury(draft.buried)
            case Heartbeat() | ConnectionClosed():
                return None
        return Rejected(request_id, complaint, code) if complaint else Accepted(request_id, told)

    def _register_actor(self, draft: Draft, actor: ActorEntry) -> tuple[str, str]:
        complaint = draft.register_actor(actor)
        self._bury(draft.buried)
        if complaint:
            return complaint, DIRECTORY_OLDER if draft.is_older_copy(actor) else ""
        self._hearing.opened(actor.incarnation, actor.directory)
        return "", ""

    def _foreign(self, now_ns: int, draft: Draft, incoming: Incoming, name: str) -> tuple[str, str]:
        """Return why the sender does not speak for a node, and that reason's code; ("", "") if it does.

        It does once it has registered that node. If no one has since the coordinator's start, the first
        sender heard under the name does from then on.
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
        """Mark these dead, if all known ones are the sender's own; return why not, as `_foreign` does."""
        incarnations = message.incarnations
        nodes = {draft.actors[each].node for each in incarnations if each in draft.actors}
        for name in sorted(nodes):
            complaint = self._foreign(now_ns, draft, incoming, name)
            if complaint[0]:
                return complaint
        if nodes or self._owners.owns_any(incoming.sender):
            self._bury(incarnations)
            # In the same map as the deaths, so that no successor learns of the deaths alone.
            draft.suspect(incarnations, message.suspicions)
            draft.raise_floors(message.marks, incarnations)
            draft.report_dead(incarnations)
            return "", ""
        return "only a node's supervisor reports deaths: register the node first", ""

    def _propose(self, now_ns: int, draft: Draft, incoming: Incoming, message: Propose) -> CoordinatorReply:
        sender = incoming.sender
        if message.proposer != sender:
            return Rejected(
                message.request_id, "an actor proposes for itself only: proposer is not the hello's sender"
            )
        if self._subscribed.get(incoming.connection) != sender:
            return Rejected(message.request_id, "subscribe to the map first, then propose")
        decisions = []
        for proposal in message.proposals:
            # What waits gets no reply, so it is sent again.
            if self._holds_back(now_ns, draft, proposal):
                self._unheard[proposal.shard] = None
                decision = None
            else:
                decision = self._decide_one(now_ns, draft, sender, proposal)
            if decision is not None:
                decisions.append(decision)
            elif draft.is_claim(sender, proposal, self._awaiting(now_ns, draft, proposal)):
                self._claimed.add(proposal.shard)
                claim = Claim(sender, proposal, incoming.connection, message.request_id)
                self._recoveries.note(now_ns, claim)
        return Decided(message.request_id, tuple(decisions))

    def _holds_back(self, now_ns: int, draft: Draft, proposal: Proposal) -> bool:
        if not 0 <= proposal.shard < len(draft.shards):
            return False
        return self._hearing.holds_back(now_ns, proposal.shard, proposal.kind, draft.actors)

    def _decide_one(self, now_ns: int, draft: Draft, proposer: bytes, proposal: Proposal) -> Decision | None:
        if proposal.nonce in self._refused:
            reason = "refused: this proposal was refused before; propose again under a new nonce"
            return Decision(proposal.shard, proposal.nonce, applied=False, reason=reason)
        awaiting = self._awaiting(now_ns, draft, proposal)
        decision = draft.propose(proposer, proposal, self._claims_on(now_ns, draft, proposal), awaiting)
        if decision is not None and proposal.kind == "recover":
            self._recoveries.drop(proposal.shard, proposer)
        if decision is not None and not decision.applied and draft.could_apply_later(proposal):
            remember(self._refused, proposal.nonce, _REFUSED_MAX)
        return decision

    def _claims_on(self, now_ns: int, draft: Draft, proposal: Proposal) -> Mapping[bytes, Last]:
        if proposal.kind != "recover" or malformed(proposal, len(draft.shards)):
            return NO_CLAIMS
        is_over = self._absence.judge(now_ns, draft.actors, draft.nodes)
        return self._recoveries.standing(proposal.shard, draft.shards[proposal.shard], draft.actors, is_over)

    def _awaiting(self, now_ns: int, draft: Draft, proposal: Proposal) -> Awaiting:
        if proposal.kind != "recover" or malformed(proposal, len(draft.shards)):
            return EVERYBODY
        shard = proposal.shard
        return self._absence.on(now_ns, shard, draft.shards[shard], draft.actors, draft.nodes)

    def _answer_claims(self, now_ns: int, draft: Draft) -> list[tuple[int, CoordinatorReply]]:
        """Decide the best claims that no longer wait, so that they need not be made again."""
        shards, self._claimed = sorted(self._claimed), set()
        heard = self._hearing.progress(now_ns)
        if heard != self._heard or draft.actors != self.map.actors:
            self._heard = heard
            shards = sorted(self._recoveries.shards)
        elif self._absence.counts and now_ns >= self._look_ns:
            # Time alone may be enough.
            self._look_ns = now_ns + self._down_ns // 4
            shards = sorted(self._recoveries.shards)
        answers: list[tuple[int, CoordinatorReply]] = []
        is_over = self._absence.judge(now_ns, draft.actors, draft.nodes)
        for claim in list(self._recoveries.best(shards, draft.shards, draft.actors, is_over)):
            proposal, claimant = claim.proposal, claim.claimant
            gone = self._subscribed.get(claim.connection) != claimant
            gone = gone or is_away(claimant, draft.actors, draft.nodes)  # and its connection is left over
            if gone or self._holds_back(now_ns, draft, proposal):
                continue  # it claims again once it is back
            decision = self._decide_one(now_ns, draft, claimant, proposal)
            if decision is not None:
                answers.append((claim.connection, Decided(claim.request_id, (decision,))))
        return answers

    def _bury(self, incarnations: Iterable[bytes]) -> None:
        for incarnation in incarnations:
            remember(self._dead, incarnation, _DEAD_MAX)

    # --- heartbeats --------------------------------------------------------------------------------------

    def _heartbeat(self, now_ns: int, draft: Draft, incoming: Incoming, message: Heartbeat) -> None:
        node = draft.nodes.get(message.node)
        if node is None:
            return  # forgotten or removed: its supervisor learns that from the map
        if not self._owners.beat(now_ns, incoming.sender, incoming.connection, message.node):
            return  # its name was taken over: the map tells its supervisor
        self._heard_node(incoming.sender, message.node)
        if node.state == "down":
            draft.set_node_state(node.name, "up")
        if message.suspicions:
            here = (node.name, "up")
            actors = {key for key, actor in draft.actors.items() if (actor.node, actor.state) == here}
            draft.suspect(actors, message.suspicions)
        for incarnation, mark in message.marks:
            actor = draft.actors.get(incarnation)
            if actor is not None and actor.node == node.name and actor.directory:
                self.marks.hear(actor, mark)

    def _heard_node(self, sender: bytes, name: str) -> None:
        if not self._claims.is_claimant(sender):
            self._hearing.heard_node(name)

    def _mark_down(self, now_ns: int, draft: Draft) -> None:
        """Mark silent nodes down. A leaving node stays leaving: a heartbeat would bring it back up."""
        for node in list(draft.nodes.values()):
            if node.state == "up" and self._owners.silence_ns(now_ns, node.name) >= self._down_ns:
                draft.set_node_state(node.name, "down")
                draft.warnings.append(f"node {node.name} is down: no heartbeat for {self._down_ns / 1e9:g} s")

    def _note_pause(self, now_ns: int) -> None:
        """Count no pause of this process as silence: heartbeats may still wait in the sockets."""
        paused_ns = now_ns - self._stepped_ns
        if paused_ns > self._down_ns // 2:
            self._owners.forgive(paused_ns)
        self._stepped_ns = now_ns

    # --- lineage and proof -------------------------------------------------------------------------------

    @property
    def refusal(self) -> str:
        """The reason why everything is refused, or ""."""
        return self._older or self._held

    def proven(self, now_ns: int) -> bool:
        """Whether this run decides without waiting to hear members; once true it stays so."""
        return self._hearing.proven(now_ns)

    def shown(self, now_ns: int, maps: Sequence[ClusterMap]) -> Outcome:
        """Take the maps that nodes gave when asked (`Outcome.ask`).

        A map of a later lineage, or with a later epoch of any shard, ends this run. A map that is newer by
        its version alone holds no decision that this one lacks: an older copy was in use for a while, or this
        is one. Versions continue after it, so that its holders follow again, also if none of them is a node.
        """
        if self._older:
            return Outcome()
        found = [shown for shown in maps if is_of_this_cluster(self.map, shown)]
        for shown in found:
            if is_later(self.map, shown):
                self._older = why_older(self.map, shown.lineage, shown.version)
                return Outcome(warnings=(self._older,))
        if not (newest := self._claims.newest(self.map, found)):
            return Outcome(warnings=self._claims.dismiss(now_ns, len(found)))
        told = self._claims.refute(now_ns, newest)
        before, self.map = self.map, msgspec.structs.replace(self.map, version=newest + 1)
        return Outcome(self.map, delta_between(before, self.map), warnings=told)

    def _hear(self, now_ns: int, batch: Sequence[Incoming]) -> tuple[str, ...]:
        """Note which maps the peers of a batch know, and which nodes come, before anything is decided."""
        claimed = None
        decided = any(entry.epoch for entry in self.map.shards)
        for incoming in batch:
            message = incoming.message
            if isinstance(message, RegisterNode) and incoming.connection not in self._foreigners:
                self._owners.sought(now_ns, incoming.connection, message.node.name)
            if incoming.role != wire.ROLE_PEER or not isinstance(message, wire.Subscribe | Heartbeat):
                continue
            known = (message.lineage, message.version)
            if self._foreigners.note(incoming.connection, message.identity):
                if not decided:  # our directory was emptied, unless this is meant to be a new cluster
                    self._claims.note_foreign(now_ns, known)
                    claimed = max(known, claimed or known)
                continue
            epochs = message.epochs if isinstance(message, wire.Subscribe) else ()
            if self._claims.note(now_ns, incoming.sender, known, epochs, self.map):
                claimed = max(known, claimed or known)
                self._hearing.denied(incoming.sender, epochs, self.map.epochs)
            elif isinstance(message, wire.Subscribe):
                self._hearing.heard(incoming.sender, epochs, message.testimony, self.map.epochs)
        held, self._held = self._held, ""
        if decided or self._claims.latest is None:
            return ()
        if now_ns - self._claims.made_ns > round(HOLD_SECONDS * 1e9):
            return ()
        # Nothing was decided yet, so waiting costs nothing, and there is no known node to ask.
        self._held = held if claimed is None else why_older(self.map, *claimed)
        return (self._held,) if not held else ()

    def _to_ask(self, now_ns: int) -> tuple[str, ...]:
        """Return the nodes to ask for their maps now because of a claim, those that are up first."""
        if not self.map.nodes or not self._claims.ask_due(now_ns):
            return ()
        nodes = sorted(self.map.nodes.values(), key=lambda node: (node.state != "up", node.name))
        return tuple(node.address for node in nodes[:ASKED_MAX])

    def _unheard_news(self, now_ns: int) -> list[str]:
        """Return news about decisions that wait for members to be heard."""
        if self._hearing.proven(now_ns):
            return self._news.of_proof()
        if not self._unheard or now_ns < self._settled_ns:
            return []
        return self._news.of_unheard(self._unheard, self._hearing.missing(self._unheard, self.map.actors))

    def _refuse(self, batch: Sequence[Incoming]) -> tuple[Response, ...]:
        responses = []
        for incoming in batch:
            if isinstance(incoming.message, ConnectionClosed):
                self._foreigners.closed(incoming.connection)
                continue
            reply = refusal(incoming.message, OLDER_MAP, self.refusal)
            responses.append(Response(incoming.connection, reply))
        return tuple(responses)

    # --- the outcome -------------------------------------------------------------------------------------

    def _conclude(self, draft: Draft, answers: list[tuple[int, CoordinatorReply | None]]) -> Outcome:
        before = self.map
        draft.warnings += draft.emptied()
        self.map = after = draft.finish()
        self._owners.keep(after.nodes)
        self._hearing.keep_nodes(after.nodes)
        if after.actors is not before.actors and self.marks.known:
            self.marks.keep({actor.directory for actor in after.actors.values()})
        responses = tuple(
            Response(connection, wire.MapFull(after) if reply is None else reply)
            for connection, reply in answers
        )
        if after is before:
            return Outcome(responses=responses, warnings=tuple(draft.warnings))
        draft.warnings += self._news.of_waiting(after) + self._news.of_directories(after)
        return Outcome(after, delta_between(before, after), responses, tuple(draft.warnings))
