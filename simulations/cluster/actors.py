"""An actor's process around the real core, which the real `CoreRunner` steps.

`hold_effects` stops the process in the middle of a step, after the core's decision and before its effects.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Protocol

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.framing import messages_decoder
from greenroom_cluster.access import ActorRequest
from greenroom_cluster.coordination.messages import Decision, Proposal
from greenroom_cluster.links import former
from greenroom_cluster.links.coordinator_session import Remembered
from greenroom_cluster.links.core_runner import CoreRunner
from greenroom_cluster.links.handshake import stamped
from greenroom_cluster.links.outbox import CloseLink, LinkChange, OpenLink, farewell
from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.messages import (
    PeerReply,
    PeerRequest,
)
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import as_received
from greenroom_cluster.suspect_records import EXIT_CORE_FAILED, InHand
from simulations.cluster.connections import Acceptor, Codec, Served, Service, hello, holder
from simulations.cluster.coordinator_links import CoordinatorLink
from simulations.cluster.dialed import Dialed
from simulations.cluster.marks import ActorMark, PoisonedError
from simulations.kernel.directory import Directory, FailedError
from simulations.kernel.disk import DiskWriter
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import SECOND, Machine

_CLEANING_SECONDS = 0.002

_client_decoder = messages_decoder(ActorRequest)
_former_decoder = former.FormerDecoder(ActorRequest)
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
    """Judges the steps of actors."""

    def before(self, actor: "ActorProcess", event: ins.HostInput) -> None:
        """See an input before an actor takes it."""

    def core_failed(self, actor: "ActorProcess", event: ins.HostInput, error: Exception) -> None:
        """Hear that a core has raised."""

    def after(self, actor: "ActorProcess", event: ins.HostInput, effects: list[fx.HostEffect]) -> None:
        """See the effects of that step."""


class _WatchedCore:
    """The core of an actor, watched on both sides; holds back the effects of a step if asked to."""

    def __init__(self, actor: "ActorProcess", watcher: StepWatcher) -> None:
        self._actor = actor
        self._watcher = watcher
        self.next_deadline = actor.host.next_deadline
        self.clock_us = actor.host.clock_us
        self.spent = actor.host.spent
        self.hear = actor.host.hear

    @property
    def awaits_disk(self) -> bool:
        """Whether anything waits for a sync."""
        return self._actor.host.awaits_disk

    def step(self, now_ns: int, wall_us: int, event: ins.HostInput) -> list[fx.HostEffect]:
        """Let the core step, and have it judged."""
        actor = self._actor
        self._watcher.before(actor, event)
        effects = actor.host.step(now_ns, wall_us, event)
        self._watcher.after(actor, event, effects)
        if actor.hold_effects:
            actor.hold(effects)
            return []
        return effects


class _Runner(CoreRunner[Served | Dialed]):
    """The core of an actor, on simulated connections."""

    def __init__(self, actor: "ActorProcess", watcher: StepWatcher, codec: Codec) -> None:
        super().__init__(_WatchedCore(actor, watcher), actor.machine.now_ns, actor.machine.wall_us)
        self._actor = actor
        self._watcher = watcher
        self._codec = codec
        self._links: dict[tuple[bytes, bool], Dialed] = {}
        self._armed = -1

    def step(self, event: ins.HostInput) -> None:
        """Let the core act, while its process lives."""
        if self._actor.alive:
            super().step(event)

    def begin(self) -> None:
        """Let the core's time begin."""
        self._rearm(self._core.next_deadline())

    def _perform(self, effects: list[fx.HostEffect]) -> None:
        with suppress(FailedError):  # then the process has ended, and says nothing more
            super()._perform(effects)

    def perform_held(self, effects: list[fx.HostEffect]) -> None:
        """Perform effects that were held back."""
        self._perform(effects)

    # --- what CoreRunner asks for ------------------------------------------------------------------------

    def _fail(self, event: ins.HostInput, error: BaseException) -> None:
        if isinstance(error, PoisonedError):
            return  # it has crashed or hangs already
        if not isinstance(error, Exception):
            raise error
        if isinstance(error, DiskStalledError):
            self._actor.network.happened["disk stalled"] += 1
        else:
            self._watcher.core_failed(self._actor, event, error)
        self._actor.exit_status = EXIT_CORE_FAILED
        self._actor.kill()

    def _rearm(self, deadline_ns: int) -> None:
        actor = self._actor
        due = max(actor.machine.moment(deadline_ns), actor.timeline.now + 1000)
        if self._armed <= actor.timeline.now or due < self._armed:
            self._armed = due
            actor.timeline.at(due, self._due, due)

    def _due(self, due: int) -> None:
        if due == self._armed:
            self._armed = -1
            self._actor.tell(0, self.step, ins.Tick())

    def _took_long(self, event: ins.HostInput, spent_ns: int, charged: Sequence[str]) -> None:
        pass

    def _note(self, note: fx.HostEffect) -> None:
        if self._actor.trace is not None:
            self._actor.trace(self._actor, note)

    def _propose(self, proposals: list[Proposal]) -> None:
        if self._actor.coordinator is not None:
            self._actor.coordinator.propose(proposals)

    def _change_link(self, change: LinkChange) -> None:
        match change:
            case OpenLink(peer=peer, address=address, bulk=bulk):
                self._open(peer, address, bulk=bulk)
            case CloseLink(peer=peer, bulk=bulk):
                self._links.pop((peer, bulk)).stop()

    def _open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        greeting = hello(wire.ROLE_PEER, self._actor.incarnation, peer)
        if self._actor.former_release:
            greeting = msgspec.structs.replace(greeting, features=())
        tag = "bulk" if bulk else "peer"
        link = Dialed(self._actor, self._codec, address, greeting, _reply_decoder, tag)
        self._links[peer, bulk] = link

        def received(messages: list[Any]) -> bool:
            if farewell(messages) is not None:
                return False
            self.step(ins.PeerMessages(peer, messages))
            return True

        link.on_up = lambda: self.link_up(peer, link, bulk=bulk)
        link.on_down = lambda: self.link_down(peer, bulk=bulk)
        link.on_messages = received
        link.start()


class ActorProcess(Process):
    """One incarnation, with a core that is given to it. An orphan ends itself when it notices.

    One of a `former_release` knows no namespaces. `disk` is None if it keeps nothing. `shut_out` says why it
    cannot use its directory, if so.
    """

    host: Host

    def __init__(
        self,
        network: Network,
        machine: Machine,
        random: Random,
        slot: str,
        incarnation: bytes,
        mark: ActorMark,
    ) -> None:
        super().__init__(network, machine, f"{slot}:{incarnation.hex()[:6]}", random)
        self.holder = holder("node", node_of(slot))
        self.slot = slot
        self.incarnation = incarnation
        self.orphaned = False
        self.former_release = False
        self.shut_out = ""
        self.disk: DiskWriter | None = None
        self.durability = ""
        self.opened_mark = 0
        # The directories as whose owner any map that it got has named it.
        self.registered_with: set[bytes] = set()
        self.hold_effects = False
        self.mark = mark
        # What its supervisor sees: the record in hand, and whether it works on that or stands still.
        self.in_hand: InHand | None = None
        self.exit_status = -9
        self.works_since: int | None = None
        self._works_until = 0
        self.host_settings = HostSettings()
        self._runner: _Runner | None = None
        self._held: list[fx.HostEffect] = []
        self.coordinator: CoordinatorLink | None = None
        self.trace: Callable[[ActorProcess, fx.HostEffect], None] | None = None

    def keep(self, directory: Directory, durability: str, interval_ns: int) -> None:
        """Write what it persists to this directory, which it has opened."""
        self.durability = durability
        self.opened_mark = directory.synced
        self.disk = DiskWriter(
            self,
            directory,
            on_synced=self._wake,
            on_measured=lambda free_bytes: self.step(ins.DiskMeasured(free_bytes)),
            on_failed=self._disk_failed,
            interval_ns=interval_ns,
        )

    def _disk_failed(self, how: str) -> None:
        self.network.happened[how] += 1
        self.kill()

    def run(self, codec: Codec, address: str, oracles: StepWatcher) -> None:
        """Listen, connect to the coordinator, and let the core's time begin."""
        self._runner = _Runner(self, oracles, codec)
        if self.disk is not None:
            self._runner.write_with(self.disk.write, self.disk.news)
        client = Service(_client_decoder, self._serve_client)
        peer = Service(_peer_decoder, self._serve_peer, target_required=True)
        services = {wire.ROLE_CLIENT: client, wire.ROLE_PEER: peer}
        Acceptor(self, codec, address, self.incarnation, services)
        link = self.coordinator = CoordinatorLink(
            self, codec, self.incarnation, remembered=Remembered(*self.host.remembered, self.host.shown)
        )
        link.on_map = self._on_map
        link.on_decisions = self._on_decisions
        link.on_up = self._on_up
        link.start()
        self._runner.begin()

    # --- stepping ----------------------------------------------------------------------------------------

    def step(self, event: ins.HostInput) -> None:
        """Let the core act on an event at the time it is now, and perform what it wants."""
        if self._runner is not None:
            self._runner.step(event)

    def _wake(self) -> None:
        if self._runner is not None:
            self._runner.wake()

    def hold(self, effects: list[fx.HostEffect]) -> None:
        """Stop the process with these effects decided but not performed."""
        self.hold_effects = False
        self._held = effects
        self.pause()
        self.in_hand = self.in_hand or self.mark.last

    # --- a record that it does not get past ----------------------------------------------------------------

    def clock_us(self) -> int:
        """Return the clock of its shards, as the real actor's listener does."""
        return self.host.clock_us(self.machine.now_ns(), self.machine.wall_us())

    @property
    def busy_seconds(self) -> float:
        """Processor time spent on the record in hand; the rest does not matter here."""
        return 0.0 if self.works_since is None else (self.timeline.now - self.works_since) / SECOND

    def succumb(self, record: InHand, *, hangs: bool) -> None:
        """Crash, or hang for good, with this record in hand."""
        self.in_hand = record
        if hangs:
            self.works_since = self.timeline.now
            self._works_until = NEVER_NS
            self.pause()
        else:
            self.exit_status = EXIT_CORE_FAILED
            self.kill()

    def slow_down(self, record: InHand, seconds: float) -> None:
        """Take that long to apply this record; until then the effects of the step are held back.

        The next record of the same step may be poison as well, and then comes on top.
        """
        self.in_hand = record
        self.works_since = self.timeline.now
        self.hold_effects = True
        self._works_until = max(self._works_until, self.timeline.now) + int(seconds * SECOND)
        self.timeline.at(self._works_until, self._get_past)

    def _get_past(self) -> None:
        if self.timeline.now >= self._works_until:
            self.works_since = None
            self.resume()

    def resume(self) -> None:
        """Continue, first with the effects of the interrupted step."""
        if self.works_since is not None:
            return
        self.in_hand = None
        held, self._held = self._held, []
        if self.alive and held and self._runner is not None:
            self._runner.perform_held(held)
        if self.orphaned:
            # The thread that watches the parent races with what the event loop finds.
            self.timeline.after(self.random.randrange(5_000_000), self.kill)
        super().resume()

    def leave(self) -> None:
        """Clean up and end, as a supervisor has asked for."""
        self.exit_status = 0
        self.later(_CLEANING_SECONDS, self.kill)

    def orphan(self) -> None:
        """Note that the supervisor is gone: a thread ends this process as soon as it runs."""
        self.orphaned = True
        if not self.paused or self.works_since is not None:
            self.timeline.after(self.random.randrange(1_000_000, 5_000_000), self._leave)

    def _leave(self) -> None:
        if not self.paused or self.works_since is not None:
            self.kill()

    # --- what comes in -----------------------------------------------------------------------------------

    def _serve_client(self, served: Served) -> None:
        number, runner = served.number, self._running
        assert served.greeting is not None
        client, namespace = stamped(served.greeting, served.identity)
        if namespace and self.former_release:
            served.abort("it has no TLS, by which alone a client has a namespace")
            return
        replies: _Client | former.FormerClient = _Client(served)

        def handle(requests: list[Any]) -> None:
            self.step(ins.ClientRequests(number, client, requests, namespace=namespace))

        served.on_messages = handle
        if former.is_former(served.agreement):
            served.decoder = _former_decoder
            replies = former.FormerClient(replies)
            served.on_messages = replies.refusing(handle)
        runner.add_client(number, replies)
        served.on_closed = lambda: runner.drop_client(number)

    def _serve_peer(self, served: Served) -> None:
        peer, number, runner = served.sender, served.number, self._running

        def received(messages: list[Any]) -> None:
            if not runner.take_from_peer(peer, number, served, messages):
                served.abort("the peer has opened a newer connection")

        served.on_messages = received
        served.on_closed = lambda: runner.drop_peer(peer, number)

    @property
    def _running(self) -> _Runner:
        assert self._runner is not None
        return self._runner

    def _on_map(self, cluster_map: ClusterMap) -> None:
        entry = cluster_map.actors.get(self.incarnation)
        if entry is not None:
            self.registered_with.add(entry.directory)
        self.step(ins.MapChanged(cluster_map))

    def _on_decisions(self, decisions: tuple[Decision, ...]) -> None:
        self.step(ins.Decisions(decisions))

    def _on_up(self) -> None:
        self.step(ins.CoordinationUp())
