"""A node's supervisor: mirrors `runtime/node.py` and what it uses of `runtime/supervision.py`.

What decides something there and is mirrored here: an incarnation is reported dead only when its exit was seen
through the pidfd, or when the process that a former supervisor of this node registered is gone from this very
boot of this host; what was seen is kept until the coordinator has it; a child that ended is started again
under the same slot as a new incarnation, as the real restart policy says; actors that the map calls dead are
started again; a record that a child
does not get past is suspected as in production; a node that leaves waits until no shard names its actors.
"""

from collections.abc import Callable
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, MapDelta, NodeEntry, delta_between
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination.messages import (
    Accepted,
    RegisterActor,
    RegisterNode,
    Rejected,
    RemoveNode,
    ReportDead,
    Suspicion,
)
from greenroom_cluster.restarts import GiveUp, RestartPolicy, RestartSettings
from greenroom_cluster.suspicion import WATCH_SECONDS, Watch, bounded
from simulations.actors import ActorProcess
from simulations.connections import Acceptor, Codec, Served, Service
from simulations.coordinator_links import CoordinatorLink
from simulations.network import Network
from simulations.processes import Process
from simulations.timeline import MILLISECOND, Machine

if TYPE_CHECKING:
    from simulations.world import World

HEARTBEAT_SECONDS = 0.5
RETRY_SECONDS = 0.25
PREDECESSOR_SECONDS = 0.05
HANG_SECONDS = 10.0

_decoder = messages_decoder(wire.Subscribe)


class SupervisorProcess(Process):
    """One run of `greenroom node`. `children` are the actors it started and has not seen end."""

    def __init__(
        self, network: Network, machine: Machine, random: Random, world: "World", node: str, identity: bytes
    ) -> None:
        super().__init__(network, machine, f"supervisor {node}", random)
        self.node = node
        self.world = world
        self.address = f"{node}:1"
        self.state = "up"
        self.children: dict[str, ActorProcess] = {}
        self.restarting = True
        self.removed = False
        self.joined = False
        self.done = False
        self._entries: dict[bytes, ActorEntry] = {}
        self._unreported: dict[bytes, tuple[Suspicion, ...]] = {}
        self._watches: dict[bytes, Watch] = {}
        self._reporting = False
        self._registering = False
        self._burying = False
        self._subscribers: dict[int, Served] = {}
        self._published: ClusterMap | None = None
        self._encoded: tuple[ClusterMap, bytes] | None = None
        self.identity = identity
        self._policies: dict[str, RestartPolicy] = {}
        self.link = CoordinatorLink(self, world.codec, identity)

    @property
    def host_identity(self) -> str:
        """This boot of this host."""
        return f"{self.machine.name}/{self.machine.boot}"

    def run(self, codec: Codec, actors: int) -> None:
        """Listen, connect, and start the actors."""
        service = Service(_decoder, self._serve)
        Acceptor(
            self, codec, self.address, self.identity, {wire.ROLE_CLIENT: service, wire.ROLE_ADMIN: service}
        )
        self.link.on_map = self._on_map
        self.link.on_up = self._changed
        self.link.start()
        self._beat()
        for index in range(actors):
            slot = f"{self.node}/{index}"
            self._policies[slot] = RestartPolicy(slot, RestartSettings(restarts_max=100), self.random)
            self.later(0.0, self._start_child, slot)

    # --- children ----------------------------------------------------------------------------------------

    def _start_child(self, slot: str) -> None:
        if slot in self.children or self.done or not self.restarting:
            return
        child = self.world.make_actor(self.node, slot)
        self.children[slot] = child
        child.on_death = lambda: self._exit_seen(child)
        child.on_stuck = lambda: self._stuck(child)
        self.later(self.random.uniform(*self.world.plan.start_seconds), self._ready, child)

    def _ready(self, child: ActorProcess) -> None:
        if not child.alive or self.children.get(child.slot) is not child:
            return
        self._policies[child.slot].started(self.machine.now_ns())
        address = self.world.start_actor(child)
        pid = self.world.pid_of(child)
        self._entries[child.incarnation] = ActorEntry(
            child.incarnation, self.node, child.slot, address, "up", self.host_identity, pid, pid
        )
        self._changed()

    def _exit_seen(self, child: ActorProcess) -> None:
        """The kernel makes the pidfd readable; this process acts on it once it runs."""
        self.timeline.after(2 * MILLISECOND, self.tell, 0, self._on_exit, child)

    def _on_exit(self, child: ActorProcess) -> None:
        if self.children.get(child.slot) is not child:
            return
        del self.children[child.slot]
        self._entries.pop(child.incarnation, None)
        watch = self._watches.pop(child.incarnation, Watch())
        watch.ended(child.in_hand, child.busy_seconds, crashed=child.crashed)
        self._unreported[child.incarnation] = watch.suspicions(child.incarnation)
        self._report()
        if self.done:
            return
        answer = self._policies[child.slot].exited(self.machine.now_ns())
        if not isinstance(answer, GiveUp):
            self.later(answer.delay_ns / 1e9, self._start_child, child.slot)

    def restart_children(self) -> None:
        """Start what is missing, after restarts were forbidden for a while."""
        self.restarting = True
        for slot in self._policies:
            self._start_child(slot)

    def watch_hang(self, child: ActorProcess) -> None:
        """A child that sends no heartbeat for long is killed."""
        self.later(HANG_SECONDS, self._kill_hung, child)

    def _kill_hung(self, child: ActorProcess) -> None:
        if child.alive and child.paused and self.children.get(child.slot) is child:
            self.network.happened["hung actor killed"] += 1
            child.kill()

    def _stuck(self, child: ActorProcess) -> None:
        """It looks at every child's mark all the time; it has something to see in one that is stuck."""
        self._watches.setdefault(child.incarnation, Watch())
        self.tell(0, self._look, child)
        if child.works_since is not None:
            self.watch_hang(child)

    def _look(self, child: ActorProcess) -> None:
        watch = self._watches.get(child.incarnation)
        if watch is None or not child.alive:
            return
        if watch.look(child.in_hand, child.busy_seconds) and self.joined and not self.removed:
            self.link.heartbeat(self.node, self._suspicions())
        if child.paused:
            self.later(WATCH_SECONDS, self._look, child)

    def _suspicions(self) -> tuple[Suspicion, ...]:
        return bounded(
            each for incarnation, watch in self._watches.items() for each in watch.suspicions(incarnation)
        )

    def kill(self) -> None:
        """End it; its children notice that they are orphans."""
        if not self.alive:
            return
        super().kill()
        for child in self.children.values():
            child.orphan()

    # --- the coordinator ---------------------------------------------------------------------------------

    def _beat(self) -> None:
        if self.joined and not self.removed:
            self.link.heartbeat(self.node, self._suspicions())
        self.later(HEARTBEAT_SECONDS, self._beat)

    def _on_map(self, cluster_map: ClusterMap) -> None:
        self._publish(cluster_map)
        self._changed()

    def _changed(self) -> None:
        self._register()
        self._report()
        self._bury_predecessors()
        self._leave_if_done()

    def _report(self) -> None:
        if self._reporting or not self._unreported or not self.joined:
            return
        self._reporting = True
        dead = tuple(self._unreported)

        def answered(reply: Accepted | Rejected | None) -> None:
            self._reporting = False
            if isinstance(reply, Accepted):
                for incarnation in dead:
                    self._unreported.pop(incarnation, None)
                self._report()
                self._leave_if_done()
            else:
                self.later(RETRY_SECONDS, self._report)

        self.world.check_dead(self, dead)
        suspicions = bounded(chain.from_iterable(self._unreported.values()))
        self.link.call(lambda number: ReportDead(number, dead, suspicions), answered)

    def _register(self) -> None:
        """Make the map say what is: this node in its state, and every actor that is ready."""
        cluster_map = self.link.map
        if self._registering or not self.link.up or cluster_map is None or self.removed:
            return
        entry = NodeEntry(self.node, self.address, self.state)
        if not self.joined or cluster_map.nodes.get(self.node) != entry:
            self._call_once(lambda number: RegisterNode(number, entry), joins=True)
            return
        for actor in list(self._entries.values()):
            known = cluster_map.actors.get(actor.incarnation)
            if known is None:
                self._call_once(lambda number, actor=actor: RegisterActor(number, actor))  # type: ignore[misc]
                return
            if known.state == "dead":
                self._entries.pop(actor.incarnation)
                self.children[actor.slot].kill()

    def _call_once(
        self, request: Callable[[int], RegisterNode | RegisterActor], *, joins: bool = False
    ) -> None:
        self._registering = True

        def answered(reply: Accepted | Rejected | None) -> None:
            self._registering = False
            if joins and isinstance(reply, Accepted):
                self.joined = True
                self._report()
            self.later(
                0.0 if isinstance(reply, Accepted) and not self._stale() else RETRY_SECONDS, self._register
            )

        self.link.call(request, answered)

    def _stale(self) -> bool:
        """Whether the map still lacks what was accepted: it is on its way."""
        cluster_map = self.link.map
        return cluster_map is not None and any(each not in cluster_map.actors for each in self._entries)

    def _bury_predecessors(self) -> None:
        cluster_map = self.link.map
        waiting = False
        for actor in cluster_map.actors.values() if cluster_map is not None else ():
            if (
                actor.node != self.node
                or actor.host != self.host_identity
                or actor.state == "dead"
                or actor.incarnation in self._entries
                or actor.incarnation in self._unreported
            ):
                continue
            if self.world.is_process_alive(actor.pid):
                waiting = True
            else:
                self._unreported[actor.incarnation] = ()
                self._report()
        if waiting and not self._burying:
            self._burying = True
            self.later(PREDECESSOR_SECONDS, self._bury_again)

    def _bury_again(self) -> None:
        self._burying = False
        self._bury_predecessors()

    # --- leaving -----------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Drain: hand everything to others, then stop (SIGTERM)."""
        self.state = "leaving"
        self._changed()

    def _leave_if_done(self) -> None:
        cluster_map = self.link.map
        if self.state != "leaving" or cluster_map is None:
            return
        node = cluster_map.nodes.get(self.node)
        others = any(each.state == "up" and each.name != self.node for each in cluster_map.nodes.values())
        if not self.done and node is not None and node.state == "leaving" and others:
            ours = {each.incarnation for each in cluster_map.actors.values() if each.node == self.node}
            if all(ours.isdisjoint(shard.members) for shard in cluster_map.shards):
                self.done = True
                for child in list(self.children.values()):
                    child.kill()
        if self.done and not self.removed and not self.children and not self._unreported:
            self.removed = True
            self.network.happened["node drained"] += 1
            self.link.call(lambda number: RemoveNode(number, self.node), lambda _: self.kill())

    # --- the map for clients -----------------------------------------------------------------------------

    def _serve(self, served: Served) -> None:
        def received(_: list[wire.Subscribe]) -> None:
            self._subscribers[served.number] = served
            if self._published is not None:
                self.network.send(served.end, self._whole(self._published))

        def closed() -> None:
            self._subscribers.pop(served.number, None)

        served.on_messages = received
        served.on_closed = closed

    def _whole(self, cluster_map: ClusterMap) -> bytes:
        if self._encoded is None or self._encoded[0] is not cluster_map:
            self._encoded = (cluster_map, self.world.encode([wire.MapFull(cluster_map)]))
        return self._encoded[1]

    def _publish(self, new: ClusterMap) -> None:
        old, self._published = self._published, new
        if not self._subscribers:
            return
        if old is None or old.lineage != new.lineage:
            payload = self._whole(new)
        else:
            delta: MapDelta = delta_between(old, new)
            payload = self.world.encode([wire.MapChange(delta)])
        for served in list(self._subscribers.values()):
            self.network.send(served.end, payload)
