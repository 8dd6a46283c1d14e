"""A node's supervisor: a shell around the real `node.agent.Agent`, and a real `keeper.Keeper` for each child.

The process ids of a world are never used again, so a process is there or not.
"""

from random import Random
from typing import Protocol

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination.messages import ReportDead
from greenroom_cluster.keeper import WATCH_SECONDS, Keeper, SupervisionSettings
from greenroom_cluster.node import effects as fx
from greenroom_cluster.node import inputs as ins
from greenroom_cluster.node.agent import Agent, AgentSettings
from greenroom_cluster.restarts import GiveUp, RestartSettings
from simulations.cluster.actors import ActorProcess
from simulations.cluster.connections import Acceptor, Codec, Served, Service, holder
from simulations.cluster.coordinator_links import CoordinatorLink
from simulations.cluster.publishing import Publisher
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, Machine
from simulations.plans.plan import Plan

DRAIN_SECONDS = 30.0
RESTARTS = RestartSettings(restarts_max=100)

_decoder = messages_decoder(wire.Subscribe)


class Surroundings(Protocol):
    """The surroundings of a supervisor: it makes processes, and looks them up by their ids."""

    @property
    def codec(self) -> Codec:
        """How messages travel."""

    @property
    def plan(self) -> Plan:
        """What the run is made of."""

    def zone_of(self, node: str) -> str:
        """Return the zone in which a node is."""

    def keeps(self, node: str) -> bool:
        """Whether the actors of a node keep what they hold in directories."""

    def make_actor(self, node: str, slot: str) -> ActorProcess:
        """Make an actor's process, which does not serve yet."""

    def start_actor(self, actor: ActorProcess) -> str:
        """Let an actor serve; return its address."""

    def pid_of(self, actor: ActorProcess) -> int:
        """Return the process id."""

    def is_process_alive(self, pid: int) -> bool:
        """Whether the process with that id runs."""

    def check_dead(self, supervisor: "SupervisorProcess", incarnations: tuple[bytes, ...]) -> None:
        """Judge what a supervisor reports."""

    def encode(self, messages: list[wire.Frame]) -> bytes:
        """Return the frames of these messages."""


class SupervisorProcess(Process):
    """One run of `greenroom node`. `children` are the actors it started and has not seen end."""

    def __init__(
        self,
        network: Network,
        machine: Machine,
        random: Random,
        surroundings: Surroundings,
        node: str,
        identity: bytes,
    ) -> None:
        super().__init__(network, machine, f"supervisor {node}", random)
        self.holder = holder("node", node)
        self.node = node
        self._surroundings = surroundings
        self.address = f"{node}:1"
        self.children: dict[str, ActorProcess] = {}
        self.restarting = True
        self.removed = False
        self.stopping = False
        self.identity = identity
        seconds = surroundings.plan.marks_seconds
        zone = surroundings.zone_of(node)
        settings = AgentSettings(node, self.address, self.host_identity, DRAIN_SECONDS, seconds, zone)
        self.agent = Agent(settings, machine.now_ns())
        self._armed = -1
        self._publisher = Publisher(network, lambda message: surroundings.encode([message]))
        self._keepers: dict[str, Keeper] = {}
        keeper_of = node if surroundings.keeps(node) else ""
        self.link = CoordinatorLink(self, surroundings.codec, identity, keeper_of=keeper_of)

    @property
    def host_identity(self) -> str:
        """This boot of this host."""
        return f"{self.machine.name}/{self.machine.boot}"

    @property
    def leaving(self) -> bool:
        """Whether it is handing everything over, or has done so."""
        return self.agent.leaving

    def run(self, codec: Codec, actors: int) -> None:
        """Listen, connect, and start the actors."""
        service = Service(_decoder, self._serve)
        Acceptor(
            self, codec, self.address, self.identity, {wire.ROLE_CLIENT: service, wire.ROLE_ADMIN: service}
        )
        self.link.on_map = lambda cluster_map: self.step(ins.MapSeen(cluster_map))
        self.link.on_up = lambda: self.step(ins.CoordinatorUp())
        self.link.on_down = lambda: self.step(ins.CoordinatorDown())
        self.link.start()
        self._arm()
        for index in range(actors):
            slot = f"{self.node}/{index}"
            self._keepers[slot] = Keeper(slot, SupervisionSettings(), RESTARTS, self.random)
            self.later(0.0, self._start_child, slot)

    # --- children ----------------------------------------------------------------------------------------

    def _start_child(self, slot: str) -> None:
        if slot in self.children or self.stopping or not self.restarting:
            return
        child = self._surroundings.make_actor(self.node, slot)
        self.children[slot] = child
        self._keepers[slot].start(self.machine.now_ns())
        self.step(ins.ChildStarting(slot, child.incarnation))
        child.on_death = lambda: self._exit_seen(child)
        seconds = self.random.uniform(*self._surroundings.plan.start_seconds)
        self.later(seconds, self._shut_out if child.shut_out else self._ready, child)
        self._watch(child)

    def _shut_out(self, child: ActorProcess) -> None:
        """It ends, for instance because another process, an orphan that is stopped, holds its directory."""
        self.network.happened[child.shut_out] += 1
        child.exit_status = 1
        child.kill()

    def _ready(self, child: ActorProcess) -> None:
        if not child.alive or self.children.get(child.slot) is not child:
            return
        self._keepers[child.slot].heard(ready=True)
        address = self._surroundings.start_actor(child)
        pid = self._surroundings.pid_of(child)
        ready = ins.ChildReady(child.slot, child.incarnation, address, pid, pid)
        if child.disk is not None:
            directory = child.disk.directory
            ready = msgspec.structs.replace(
                ready, durability=child.durability, directory=directory.identity, mark=child.opened_mark
            )
        self.step(ready)

    def _exit_seen(self, child: ActorProcess) -> None:
        """The kernel makes the pidfd readable; this process acts on it once it runs."""
        self.timeline.after(2 * MILLISECOND, self.tell, 0, self._on_exit, child)

    def _on_exit(self, child: ActorProcess) -> None:
        if self.children.get(child.slot) is not child:
            return
        del self.children[child.slot]
        self.step(ins.ChildEnded(self._mark_of(child), child.exit_status))
        verdict = self._keepers[child.slot].exited(self.machine.now_ns())
        if verdict is None:
            self._tell_when_stopped()
        elif isinstance(verdict, GiveUp):
            self.kill()
        else:
            self.later(verdict.delay_ns / 1e9, self._start_child, child.slot)

    def restart_children(self) -> None:
        """Start what is missing, after restarts were forbidden for a while."""
        self.restarting = True
        for slot in self._keepers:
            self._start_child(slot)

    def _watch(self, child: ActorProcess) -> None:
        """Kill a child that hangs. One that runs sends heartbeats, which need no connection here."""
        if self.children.get(child.slot) is not child or not child.alive:
            return
        keeper = self._keepers[child.slot]
        if not child.paused:
            keeper.heard()
        if keeper.hangs(self.machine.now_ns()):
            self.network.happened["hung actor killed"] += 1
            child.kill()
        else:
            self.later(WATCH_SECONDS, self._watch, child)

    def _read_marks(self) -> None:
        marks = tuple(self._mark_of(child) for child in self.children.values() if child.alive)
        self.step(ins.MarksRead(marks))

    def _mark_of(self, child: ActorProcess) -> ins.RecordMark:
        pid = self._surroundings.pid_of(child)
        reached = 0 if child.disk is None else child.disk.reached
        return ins.RecordMark(child.slot, child.incarnation, pid, child.in_hand, child.busy_seconds, reached)

    def kill(self) -> None:
        """End it; its children notice that they are orphans."""
        if not self.alive:
            return
        super().kill()
        for child in self.children.values():
            child.orphan()

    def leave(self) -> None:
        """Have it hand everything to others and leave (SIGTERM)."""
        self.tell(0, self.step, ins.DrainAsked())

    # --- stepping ----------------------------------------------------------------------------------------

    def step(self, event: ins.AgentInput) -> None:
        """Let the agent act on an event at the time it is now, and perform what it wants."""
        if not self.alive:
            return
        for effect in self.agent.step(self.machine.now_ns(), event):
            self._perform(effect)
        self._arm()

    def _arm(self) -> None:
        due = max(self.machine.moment(self.agent.next_deadline()), self.timeline.now + 1000)
        if self._armed <= self.timeline.now or due < self._armed:
            self._armed = due
            self.timeline.at(due, self._due, due)

    def _due(self, due: int) -> None:
        if due == self._armed and self.alive:
            self._armed = -1
            self.tell(0, self.step, ins.Tick())

    def _perform(self, effect: fx.AgentEffect) -> None:
        match effect:
            case fx.Heartbeat(node=node, suspicions=suspicions, marks=marks):
                self.link.heartbeat(node, suspicions, marks)
            case fx.Call():
                self._call(effect)
            case fx.Publish(map=cluster_map):
                self._publisher.publish(cluster_map)
            case fx.LookFor(actors=actors):
                self._look_for(actors)
            case fx.ReadMarks():
                self._read_marks()
            case fx.KillChild(slot=slot):
                self.children[slot].kill()
            case fx.StopChildren():
                self._stop_children()
            case fx.Finished(removed=removed):
                self.removed = removed
                if removed:
                    self.network.happened["node drained"] += 1
                self.kill()

    def _stop_children(self) -> None:
        self.stopping = True
        for slot, keeper in self._keepers.items():
            seconds, child = keeper.stop(), self.children.get(slot)
            if child is not None:
                child.tell(0, child.leave)
                self.later(seconds, child.kill)
        self.later(0.0, self._tell_when_stopped)

    def _call(self, call: fx.Call) -> None:
        if isinstance(call.request, ReportDead):
            self._surroundings.check_dead(self, call.request.incarnations)
        self.link.call(
            lambda number: msgspec.structs.replace(call.request, request_id=number),
            lambda reply: self.step(ins.Answered(call.call, reply)),
        )

    def _look_for(self, actors: tuple[ActorEntry, ...]) -> None:
        running: list[bytes] = []
        gone: list[bytes] = []
        for actor in actors:
            alive = self._surroundings.is_process_alive(actor.pid)
            (running if alive else gone).append(actor.incarnation)
        self.step(ins.Looked(tuple(running), tuple(gone)))

    def _tell_when_stopped(self) -> None:
        if not self.children:
            self.step(ins.ChildrenStopped())

    # --- the map for clients -----------------------------------------------------------------------------

    def _serve(self, served: Served) -> None:
        served.on_messages = lambda _: self._publisher.subscribe(served)
        served.on_closed = lambda: self._publisher.forget(served.number)
