"""An actor's process around the real core; the real `Outbox` says where its effects go.

`hold_effects` stops the process in the middle of a step, between the core's decision and its words.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.links import former
from greenroom_cluster.links.outbox import CloseLink, OpenLink, Outbox, Rare, are_bulk, farewell
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.messages import (
    PeerReply,
    PeerRequest,
)
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import as_received
from greenroom_cluster.suspect_records import InHand
from simulations.cluster.connections import Acceptor, Codec, Dialed, Served, Service, hello
from simulations.cluster.coordinator_links import CoordinatorLink
from simulations.cluster.marks import ActorMark, PoisonedError
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import SECOND, Machine

_client_decoder = messages_decoder(wire.Get | wire.Mutation | wire.Fanout)
_former_decoder = former.FormerDecoder(wire.Get | wire.Mutation | wire.Fanout)
_peer_decoder = messages_decoder(PeerRequest)
_reply_decoder = messages_decoder(PeerReply | wire.Goodbye)


class _Client:
    """The connection of a client, which gets bytes."""

    __slots__ = ("_served",)

    def __init__(self, served: Served) -> None:
        self._served = served

    def send(self, messages: Sequence[Any]) -> None:
        """Send these."""
        self._served.send_bytes([as_received(reply) for reply in messages])


class StepWatcher(Protocol):
    """Who judges the steps of actors."""

    def before(self, actor: "ActorProcess", event: ins.HostInput) -> None:
        """See what an actor is about to act on."""

    def core_failed(self, actor: "ActorProcess", event: ins.HostInput, error: Exception) -> None:
        """Hear that the core has found itself in an impossible state."""

    def after(self, actor: "ActorProcess", event: ins.HostInput, effects: list[fx.HostEffect]) -> None:
        """See what it did."""


class ActorProcess(Process):
    """One incarnation. `parent_alive` is set by its supervisor; an orphan ends itself when it notices."""

    def __init__(
        self,
        network: Network,
        machine: Machine,
        random: Random,
        host: Host,
        slot: str,
        incarnation: bytes,
        mark: ActorMark,
    ) -> None:
        super().__init__(network, machine, f"{slot}:{incarnation.hex()[:6]}", random)
        self.host = host
        self.slot = slot
        self.incarnation = incarnation
        self.oracles: StepWatcher | None = None
        self.orphaned = False
        self.hold_effects = False
        self.mark = mark
        # What its supervisor sees: the record in hand, and whether it works on that or stands still.
        self.in_hand: InHand | None = None
        self.crashed = False
        self.works_since: int | None = None
        self.on_stuck: Callable[[], None] | None = None
        self.host_settings = HostSettings()
        self._codec = Codec(encoded=False)
        self._outbox: Outbox[Served | Dialed, _Client | former.FormerClient] = Outbox()
        self._links: dict[tuple[bytes, bool], Dialed] = {}
        self._held: list[fx.HostEffect] = []
        self._armed = -1
        self.coordinator: CoordinatorLink | None = None
        self.trace: Callable[[ActorProcess, fx.HostEffect], None] | None = None

    def run(self, codec: Codec, address: str, oracles: StepWatcher) -> None:
        """Listen, connect to the coordinator, and let the core's time begin."""
        self._codec = codec
        self.oracles = oracles
        client = Service(_client_decoder, self._serve_client)
        peer = Service(_peer_decoder, self._serve_peer, target_required=True)
        services = {wire.ROLE_CLIENT: client, wire.ROLE_PEER: peer}
        Acceptor(self, codec, address, self.incarnation, services)
        link = self.coordinator = CoordinatorLink(self, codec, self.incarnation)
        link.on_map = self._on_map
        link.on_decisions = self._on_decisions
        link.on_up = self._on_up
        link.start()
        self._arm()

    # --- stepping ----------------------------------------------------------------------------------------

    def step(self, event: ins.HostInput) -> None:
        """Let the core act on an event at the time it is now, and perform what it wants."""
        if not self.alive:
            return
        machine, oracles = self.machine, self.oracles
        assert oracles is not None
        oracles.before(self, event)
        try:
            effects = self.host.step(machine.now_ns(), machine.wall_us(), event)
        except PoisonedError:
            return
        except Exception as error:  # noqa: BLE001 - whatever the core raises is what is looked for
            oracles.core_failed(self, event, error)
            self.kill()
            return
        oracles.after(self, event, effects)
        if self.hold_effects:
            self.hold_effects = False
            self._held = effects
            self.pause()
            self.in_hand = self.in_hand or self.mark.last
            self._stuck()
        elif effects:
            self._perform(effects)
        self._arm()

    # --- a record that it does not get past ----------------------------------------------------------------

    def clock_us(self) -> int:
        """Return the clock of its shards, as the real actor's listener does."""
        return self.host.clock_us(self.machine.now_ns(), self.machine.wall_us())

    @property
    def busy_seconds(self) -> float:
        """Processor time, as far as it matters: what it spends on the record in hand."""
        return 0.0 if self.works_since is None else (self.timeline.now - self.works_since) / SECOND

    def succumb(self, record: InHand, *, hangs: bool) -> None:
        """Crash, or hang for good, with this record in hand."""
        self.in_hand = record
        if hangs:
            self.works_since = self.timeline.now
            self.pause()
            self._stuck()
        else:
            self.crashed = True
            self.kill()

    def slow_down(self, record: InHand, seconds: float) -> None:
        """Take so long over this record; nobody is told meanwhile what the step decides."""
        self.in_hand = record
        self.works_since = self.timeline.now
        self.hold_effects = True
        self.timeline.after(int(seconds * SECOND), self._get_past)

    def _get_past(self) -> None:
        self.works_since = None
        self.resume()

    def _stuck(self) -> None:
        if self.on_stuck is not None:
            self.on_stuck()

    def resume(self) -> None:
        """Go on: first with what the step under way had decided."""
        if self.works_since is not None:
            return
        self.in_hand = None
        held, self._held = self._held, []
        if self.alive and held:
            self._perform(held)
        if self.orphaned:
            # The thread that watches the parent races with what the event loop finds.
            self.timeline.after(self.random.randrange(5_000_000), self.kill)
        super().resume()

    def orphan(self) -> None:
        """The supervisor is gone: a thread ends this process, as soon as it runs."""
        self.orphaned = True
        if not self.paused or self.works_since is not None:
            self.timeline.after(self.random.randrange(1_000_000, 5_000_000), self._leave)

    def _leave(self) -> None:
        if not self.paused or self.works_since is not None:
            self.kill()

    def _arm(self) -> None:
        due = self.machine.moment(self.host.next_deadline())
        due = max(due, self.timeline.now + 1000)
        if self._armed <= self.timeline.now or due < self._armed:
            self._armed = due
            self.timeline.at(due, self._due, due)

    def _due(self, due: int) -> None:
        if due == self._armed:
            self._armed = -1
            self.tell(0, self._tick)

    def _tick(self) -> None:
        self.step(ins.Tick())
        self._arm()

    # --- what comes in -----------------------------------------------------------------------------------

    def _serve_client(self, served: Served) -> None:
        number, client = served.number, served.sender
        replies: _Client | former.FormerClient = _Client(served)

        def handle(requests: list[Any]) -> None:
            self.step(ins.ClientRequests(number, client, requests))

        served.on_messages = handle
        if former.is_former(served.agreement):
            served.decoder = _former_decoder
            replies = former.FormerClient(replies)
            served.on_messages = replies.refusing(handle)
        self._outbox.add_client(number, replies)

        def closed() -> None:
            self._outbox.drop_client(number)
            self.step(ins.ConnectionClosed(number))

        served.on_closed = closed

    def _serve_peer(self, served: Served) -> None:
        peer = served.sender

        def received(messages: list[Any]) -> None:
            ended = self._outbox.heard(peer, served.number, served, bulk=are_bulk(messages))
            if isinstance(ended, Served):
                ended.abort()
            if ended is not served:
                self.step(ins.PeerMessages(peer, messages))

        served.on_messages = received
        served.on_closed = lambda: self._outbox.drop_peer(peer, served.number)

    def _on_map(self, cluster_map: ClusterMap) -> None:
        self.step(ins.MapChanged(cluster_map))

    def _on_decisions(self, decisions: tuple[Decision, ...]) -> None:
        self.step(ins.Decisions(decisions))

    def _on_up(self) -> None:
        self.step(ins.CoordinationUp())

    # --- effects -----------------------------------------------------------------------------------------

    def _perform(self, effects: list[fx.HostEffect]) -> None:
        rare, to_peers, to_clients = self._outbox.sort(effects)
        if rare is not None:
            self._perform_rare(rare)
        for line, messages in to_peers.items():
            line.send(messages)
        for client, replies in to_clients:
            client.send(replies)
        if rare is not None and rare.proposals and self.coordinator is not None:
            self.coordinator.propose(rare.proposals)

    def _perform_rare(self, rare: Rare[Served | Dialed]) -> None:
        if self.trace is not None:
            for note in rare.notes:
                self.trace(self, note)
        for change in rare.changes:
            match change:
                case OpenLink(peer=peer, address=address, bulk=bulk):
                    self._open(peer, address, bulk=bulk)
                case CloseLink(peer=peer, bulk=bulk):
                    self._links.pop((peer, bulk)).stop()
        for line, beacon in rare.urgent:
            line.send([beacon], urgent=True)

    def _open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        greeting = hello(wire.ROLE_PEER, self.incarnation, peer)
        tag = "bulk" if bulk else "peer"
        link = self._links[peer, bulk] = Dialed(self, self._codec, address, greeting, _reply_decoder, tag)

        def received(messages: list[Any]) -> bool:
            if farewell(messages) is not None:
                return False
            self.step(ins.PeerMessages(peer, messages))
            return True

        def up() -> None:
            self._outbox.link_up(peer, link, bulk=bulk)
            self.step(ins.LinkUp(peer, bulk))

        def down() -> None:
            self._outbox.link_down(peer, bulk=bulk)
            self.step(ins.LinkDown(peer, bulk))

        link.on_up = up
        link.on_down = down
        link.on_messages = received
        link.start()
