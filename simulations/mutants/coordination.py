# ruff: noqa: ANN001, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of coordination: the coordinator, the sessions with it, and the connections between servers."""

import msgspec

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination import draft, ownership, rules, service
from greenroom_cluster.coordination.coordinator import Coordinator
from greenroom_cluster.coordination.exchange import Outcome
from greenroom_cluster.coordination.hearing import Hearing
from greenroom_cluster.coordination.inquiry import Inquiry
from greenroom_cluster.coordination.messages import RegisterActor
from greenroom_cluster.coordination.rules import NOBODY_LEFT, RULES
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.links import coordinator_session, handshake, redial
from greenroom_cluster.links.coordinator_session import CoordinatorSession
from greenroom_cluster.links.handshake import Door
from greenroom_cluster.links.outbox import Outbox
from greenroom_cluster.shard.host import Host
from simulations.mutants.patching import Patches, instead, mutant
from simulations.mutants.stories import (
    BEHIND,
    LATE_TAKEOVER,
    RESTORED,
    RESTORED_RESTARTED,
    UNANSWERED,
    UNPROVEN,
)


@mutant("decides on a stale map", budget=100, plan=LATE_TAKEOVER)
def _(patches: Patches) -> None:
    """The coordinator does not compare epochs: proposals made of an older map apply."""
    original = rules.decide

    def decide(situation):
        entry = situation.entry
        if situation.proposal.nonce != entry.nonce:
            proposal = msgspec.structs.replace(situation.proposal, epoch=entry.epoch)
            situation = msgspec.structs.replace(situation, proposal=proposal)
        return original(situation)

    patches.set(draft, "decide", decide)


@mutant("begins a shard anew while a member lives", budget=1500)
def _(patches: Patches) -> None:
    """Whoever is wanted first may start a shard that is merely unreachable."""
    allowed = tuple(rule for rule in RULES["start"] if rule is not NOBODY_LEFT)
    patches.set(rules, "RULES", {**RULES, "start": allowed})
    original = Host._start_if_wanted

    def start_if_wanted(self, now_ns, shard, entry):
        context = self._context
        states = {key: actor.state for key, actor in context.map.actors.items()}
        replaced = {member for member in entry.members if states.get(member) == "replaced"}
        with instead(context, dead=context.dead | replaced):
            original(self, now_ns, shard, entry)

    patches.set(Host, "_start_if_wanted", start_if_wanted)


@mutant("answers before the map is on disk", budget=1500)
def _(patches: Patches) -> None:
    """The coordinator publishes and answers first, and writes afterwards."""

    def begin(self, now_ns, outcome):
        self._conclude(now_ns, outcome)
        if outcome.persist is not None:
            self._writing = Outcome()
            self._effects.append(service.Persist(outcome.persist, self._vouched))

    patches.set(CoordinationService, "_begin", begin)


@mutant("vouches for a map before all were heard", budget=20, plan=RESTORED_RESTARTED)
def _(patches: Patches) -> None:
    """A coordinator that cannot tell whether its map is the newest notes on its host that it is."""
    patches.set(CoordinationService, "_proven", lambda self, now_ns: True)


@mutant("vouches for every map that it writes", budget=20, plan=RESTORED_RESTARTED)
def _(patches: Patches) -> None:
    """What is written counts as the newest map, whatever it was made from."""
    _persist(patches, vouched=True)


@mutant("vouches for no map that it writes", budget=20, plan=UNPROVEN)
def _(patches: Patches) -> None:
    """Each restart waits to hear all members, although the last run's map is the newest."""
    _persist(patches, vouched=False)


def _persist(patches, *, vouched) -> None:
    original = CoordinationService._begin

    def begin(self, now_ns, outcome):
        original(self, now_ns, outcome)
        self._effects = [
            service.Persist(effect.map, vouched) if isinstance(effect, service.Persist) else effect
            for effect in self._effects
        ]

    patches.set(CoordinationService, "_begin", begin)


@mutant("dismisses a claim before anybody answers", budget=20, plan=BEHIND)
def _(patches: Patches) -> None:
    """The nodes are asked for their maps, and the verdict does not wait for them."""

    def conclude(self, now_ns):
        was_open = self._until_ns != NEVER_NS
        self._silent, self._until_ns, self._maps = frozenset(), NEVER_NS, []
        return [] if was_open else None

    patches.set(Inquiry, "conclude", conclude)


@mutant("waits for whoever does not answer", budget=20, plan=BEHIND)
def _(patches: Patches) -> None:
    """The maps of the other nodes are not judged while one has yet to answer."""
    original = Inquiry.conclude
    patches.set(Inquiry, "conclude", lambda self, now_ns: None if self._silent else original(self, now_ns))
    patches.set(Inquiry, "next_deadline", lambda self: NEVER_NS)


@mutant("uses epochs again after a restore", budget=2000)
def _(patches: Patches) -> None:
    """A coordinator restored from an older copy does not notice that later maps are in use."""
    patches.set(Coordinator, "_hear", lambda self, now_ns, batch: ())
    patches.set(Hearing, "holds_back", lambda self, *_: False)
    patches.set(CoordinatorSession, "_known", lambda self: (0, 0))
    take = CoordinatorSession._take_map

    def take_map(self, full):
        if self.map is not None and full != self.map and not full.continues(self.map):
            self.map = None
        return take(self, full)

    patches.set(CoordinatorSession, "_take_map", take_map)


@mutant("does not say which map it knows", budget=50, plan=RESTORED)
def _(patches: Patches) -> None:
    """An actor subscribes as if it knew no map, and a restored coordinator believes its own."""
    patches.set(CoordinatorSession, "_subscription", lambda self: wire.Subscribe(0, 0))


@mutant("gives up a link that has ended")
def _(patches: Patches) -> None:
    """A connection that was to be kept open is dialled again only after a quarter of an hour."""
    patches.set(redial, "BACKOFF_NS_MIN", 10**12)
    patches.set(redial, "BACKOFF_NS_MAX", 10**12)


@mutant("ends a link for another, and uses neither", budget=100)
def _(patches: Patches) -> None:
    """When another connection is to take the place of a link, that is reset, and nobody hears of it."""
    original = redial.Redial.step

    def step(self, now_ns, event):
        effects = original(self, now_ns, event)
        if isinstance(event, redial.Replaced):
            return [effect for effect in effects if isinstance(effect, redial.Reset)]
        return effects

    patches.set(redial.Redial, "step", step)


@mutant("refuses hellos without a target", budget=50)
def _(patches: Patches) -> None:
    """Every hello must name whom it means, also that of a store that asks any node for the map."""
    original = Door.judge

    def judge(self, greeting):
        if not greeting.target:
            return wire.Goodbye("wrong-target", "another process answers here now")
        return original(self, greeting)

    patches.set(Door, "judge", judge)


@mutant("takes the name of a slot for that of its node", budget=50)
def _(patches: Patches) -> None:
    """Who registers an actor is held against the wrong name, and may register none."""
    original = ownership.trespass

    def trespass(cluster_map, node, message):
        if isinstance(message, RegisterActor) and message.actor.slot != node:
            return "of another"
        return original(cluster_map, node, message)

    patches.set(service, "trespass", trespass)


@mutant("lets nodes say hello as what commands are", budget=50)
def _(patches: Patches) -> None:
    """The roles of nodes and of operators are confused."""
    roles = handshake.ROLES
    patches.set(handshake, "ROLES", {**roles, "node": roles["operator"], "operator": roles["node"]})


@mutant("answers a peer on its first connection", budget=1500)
def _(patches: Patches) -> None:
    """A peer is answered where it was first heard, also when it has given that connection up."""

    def heard(self, peer, number, line, *, bulk):
        self._peers.setdefault((peer, bulk), (number, line))

    patches.set(Outbox, "heard", heard)


@mutant("sends the newest first", budget=50)
def _(patches: Patches) -> None:
    """What one step has to say to a peer leaves in the opposite order."""
    original = Outbox.sort

    def sort(self, effects):
        rare, to_peers, to_clients = original(self, effects)
        for messages in to_peers.values():
            messages.reverse()
        return rare, to_peers, to_clients

    patches.set(Outbox, "sort", sort)


@mutant("forgets its calls with a connection", budget=20, plan=UNANSWERED)
def _(patches: Patches) -> None:
    """What was under way on a connection that ended is neither sent again nor given up."""
    original = CoordinatorSession.step

    def step(self, event):
        if isinstance(event, coordinator_session.Lost):
            self._calls.clear()
        return original(self, event)

    patches.set(CoordinatorSession, "step", step)


@mutant("tells nobody that an answer never came", budget=20, plan=UNANSWERED)
def _(patches: Patches) -> None:
    """A call whose time is over is sent no more, and its caller goes on waiting."""
    original = CoordinatorSession.step

    def step(self, event):
        effects = original(self, event)
        return [] if isinstance(event, coordinator_session.Overdue) else effects

    patches.set(CoordinatorSession, "step", step)
