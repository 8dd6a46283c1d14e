"""Every kind of fault, and how it is healed.

A fault strikes a target (see `targets`), lasts `seconds`, and is taken back then, or when the world heals.
What has no duration heals by itself. The table `KINDS` at the end is the list of all kinds; what each does is
the first line of its function.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from greenroom_cluster.coordination.messages import ForgetNode
from simulations.actors import ActorProcess
from simulations.coordinator_links import CoordinatorLink
from simulations.network import End, TrafficRule
from simulations.plans import Fault
from simulations.processes import Process
from simulations.targets import Target, find
from simulations.timeline import MILLISECOND, SECOND

if TYPE_CHECKING:
    from simulations.world import World

Undo = Callable[[], None]


class Faults:
    """Injects faults into one world and takes them back."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.network = world.network
        self._open: dict[int, Undo] = {}
        self._numbers = 0
        self._operator: CoordinatorLink | None = None
        self._rebooting: set[str] = set()

    def schedule(self, faults: tuple[Fault, ...]) -> None:
        """Have faults strike at their times from now."""
        for fault in faults:
            self.world.timeline.after(int(fault.at_ms * MILLISECOND), self._due, fault)

    def _due(self, fault: Fault) -> None:
        if not self.world.healing:
            self.inject(
                fault.kind, fault.target, seconds=fault.seconds, amount=fault.amount, other=fault.other
            )

    def inject(
        self, kind: str, target: str, *, seconds: float = 0.0, amount: float = 0.0, other: str = ""
    ) -> None:
        """Let a fault strike now. What it cannot find it spares. Raises KeyError for an unknown kind."""
        world = self.world
        found = find(world, target or "coordinator")
        world.note(f"FAULT {kind}: {found!r} {other} for {seconds:g} s, {amount:g}")
        undo = KINDS[kind](self, found, seconds, amount, other)
        if undo is None:
            return
        self.network.happened[kind] += 1
        lasts = seconds if kind in LASTING else 0.0
        world.recording.struck(kind, found.machine or found.name, world.seconds, lasts)
        self._numbers += 1
        self._open[self._numbers] = undo
        if seconds:
            world.timeline.after(int(seconds * SECOND), self._take_back, self._numbers)

    def _take_back(self, number: int) -> None:
        undo = self._open.pop(number, None)
        if undo is not None:
            undo()

    def heal(self) -> None:
        """Take everything back, and start whatever should run."""
        for number in sorted(self._open):
            self._take_back(number)
        world = self.world
        self.network.mend_all()
        world.disk.write_ns = int(world.plan.disk_ms * 1e6)
        if not world.coordinator.alive:
            world.start_coordinator()
        world.coordinator.crash_at_write = ""
        world.coordinator.lose_answers = 0
        for supervisor in list(world.supervisors.values()):
            self.start_again(supervisor.node)

    def start_again(self, node: str) -> None:
        """Start a node's supervisor, unless its machine is without power, or waits for an operator."""
        supervisor = self.world.supervisors[node]
        if supervisor.machine.up and not supervisor.removed and node not in self._rebooting:
            self.world.start_node(node)

    # --- an operator -------------------------------------------------------------------------------------

    def forget_and_restart(self, node: str) -> None:
        """An operator says that the rebooted machine's actors are gone, then starts the node again."""
        world = self.world
        self._rebooting.add(node)
        if self._operator is None:
            machine = self.network.machine("operator")
            process = Process(self.network, machine, "operator", world.random)
            self._operator = CoordinatorLink(process, world.codec, world.random.randbytes(16))
            self._operator.start()

        def answered(outcome: str | None) -> None:
            if outcome == "" or (outcome is not None and "no node" in outcome):
                self._rebooting.discard(node)
                world.start_node(node)
            else:
                world.timeline.after(300 * MILLISECOND, self.forget_and_restart, node)

        self._operator.call(lambda number: ForgetNode(number, node), answered)

    # --- helpers -----------------------------------------------------------------------------------------

    def machines(self) -> frozenset[str]:
        """Return the names of all machines."""
        return frozenset(self.network.machines)

    def rule(self, rule: TrafficRule) -> Undo:
        """Install a traffic rule."""
        self.network.rules.append(rule)

        def remove() -> None:
            if rule in self.network.rules:
                self.network.rules.remove(rule)

        return remove

    def cut(self, ways: list[tuple[str, str]]) -> Undo:
        """Cut these directions."""
        for way in ways:
            self.network.cut(*way)
        return lambda: [self.network.mend(*way) for way in ways] and None

    def some_end(self, target: Target) -> End | None:
        """Return one of the connections of the target's process, or machine."""
        process = target.process
        ends = [end for end in process.ends if end.open and end.peer.open] if process is not None else []
        return self.world.random.choice(ends) if ends else None


def _nothing() -> None:
    pass


# --- processes -------------------------------------------------------------------------------------------


def kill_actor(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """SIGKILL to an actor; its supervisor sees it and starts another under the same slot."""
    if not isinstance(target.process, ActorProcess) or not target.process.alive:
        return None
    target.process.kill()
    return _nothing


def kill_for_good(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """SIGKILL to an actor that is not started again for so long."""
    supervisor = faults.world.supervisors.get(target.machine)
    if not isinstance(target.process, ActorProcess) or not target.process.alive or supervisor is None:
        return None
    supervisor.restarting = False
    target.process.kill()
    return lambda: supervisor.restart_children() if supervisor.alive else None


def kill_supervisor(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """SIGKILL to a supervisor; its actors follow; another starts under the same name afterwards."""
    supervisor = faults.world.supervisors.get(target.machine)
    if supervisor is None or not supervisor.alive or supervisor.state == "leaving":
        return None
    supervisor.kill()
    node = supervisor.node
    return lambda: faults.start_again(node)


def orphan_paused(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A supervisor dies while an actor of its is stopped; another starts, then the orphan wakes up."""
    actor = target.process
    supervisor = faults.world.supervisors.get(target.machine)
    if not isinstance(actor, ActorProcess) or not actor.alive or actor.paused or supervisor is None:
        return None
    if not supervisor.alive or supervisor.state == "leaving":
        return None
    actor.pause()
    supervisor.kill()
    node, world = supervisor.node, faults.world

    world.timeline.after(int(amount * SECOND), faults.start_again, node)
    return actor.resume


def crash_node(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A machine loses power; it boots again afterwards, when an operator has had it forgotten."""
    world = faults.world
    supervisor = world.supervisors.get(target.machine)
    if supervisor is None or not supervisor.machine.up or supervisor.removed or supervisor.state == "leaving":
        return None
    machine = supervisor.machine
    machine.up = False
    for actor in world.actors.values():
        if actor.machine is machine and actor.alive:
            actor.vanish()
    if supervisor.alive:
        supervisor.vanish()

    def boot() -> None:
        machine.up = True
        machine.boot += 1
        faults.forget_and_restart(supervisor.node)

    return boot


def pause(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """SIGSTOP to a process, and SIGCONT afterwards."""
    process = target.process
    if process is None or not process.alive or process.paused:
        return None
    process.pause()
    supervisor = faults.world.supervisors.get(target.machine)
    if isinstance(process, ActorProcess) and supervisor is not None:
        supervisor.watch_hang(process)
    return process.resume


def pause_mid_step(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """SIGSTOP to an actor between a decision of its core and the sending of what was decided."""
    actor = target.process
    if not isinstance(actor, ActorProcess) or not actor.alive or actor.paused:
        return None
    actor.hold_effects = True

    def resume() -> None:
        actor.hold_effects = False
        actor.resume()

    return resume


def slow(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A process takes so many milliseconds over everything."""
    process = target.process
    if process is None or not process.alive:
        return None
    process.cost_ns = int(amount * MILLISECOND)

    def quick() -> None:
        process.cost_ns = 0

    return quick


def kill_client(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A client's process dies; another takes its place afterwards."""
    world = faults.world
    if target.process not in world.clients or not target.process.alive:
        return None
    number = world.clients.index(target.process)  # type: ignore[arg-type]
    client = world.clients[number]
    client.kill()

    def start() -> None:
        world.start_client(number)
        world.workload.client_died(client, number)

    return start


# --- clocks ----------------------------------------------------------------------------------------------


def jump_clock(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The wall clock of a machine is set, by so many seconds."""
    machine = faults.network.machines.get(target.machine)
    if machine is None:
        return None
    machine.wall_offset_us += int(amount * 1e6)
    return _nothing


def change_rate(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The monotonic clock of a machine runs at that rate."""
    machine = faults.network.machines.get(target.machine)
    if machine is None:
        return None
    former = machine.rate
    machine.set_rate(int(amount * 1_000_000))
    return lambda: machine.set_rate(former)


# --- network ---------------------------------------------------------------------------------------------


def _both_ways(faults: Faults, target: Target, other: str) -> list[tuple[frozenset[str], frozenset[str]]]:
    here = frozenset({target.machine})
    there = frozenset({find(faults.world, other).machine}) if other else faults.machines() - here
    return [(here, there), (there, here)]


def _traffic(faults: Faults, target: Target, other: str, **change: float) -> Undo:
    undos = [
        faults.rule(TrafficRule(sources, destinations, **change))  # type: ignore[arg-type]
        for sources, destinations in _both_ways(faults, target, other)
    ]
    return lambda: [undo() for undo in undos] and None


def loss(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """That share of packets to and from a machine is lost."""
    return _traffic(faults, target, other, loss=amount)


def delay(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """Packets to and from a machine take about so many milliseconds more, each its own."""
    return _traffic(faults, target, other, jitter_ns=int(2 * amount * MILLISECOND))


def queue(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """What a machine sends waits so many milliseconds in the senders' queues, where beacons overtake."""
    return _traffic(faults, target, other, queue_ns=int(amount * MILLISECOND))


def reset(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A connection of a process breaks."""
    end = faults.some_end(target)
    if end is None:
        return None
    faults.network.break_connection(end)
    return _nothing


def half_open(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """One side of a connection vanishes, the other is not told."""
    end = faults.some_end(target)
    if end is None:
        return None
    faults.network.half_open(end)
    return _nothing


def repeat(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The next thing that arrives at a process is acted on, and its answer lost: so it is sent again."""
    process = target.process
    if process is None or not process.alive:
        return None
    struck = [end for end in process.ends if end.tag in ("client", "peer")]
    for end in struck:
        end.reply_lost = True
    return _nothing if struck else None


def cut_off(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A machine is cut off from all others."""
    here = target.machine
    others = sorted(faults.machines() - {here})
    return faults.cut([(here, each) for each in others] + [(each, here) for each in others])


def cut_one_way(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """Nothing gets from a machine to the others, or (amount 1) from the others to it."""
    here = target.machine
    others = [find(faults.world, other).machine] if other else sorted(faults.machines() - {here})
    return faults.cut([(each, here) if amount else (here, each) for each in others if each != here])


def cut_between(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """Two machines are cut off from each other, and from nobody else."""
    here, there = target.machine, find(faults.world, other).machine
    if not here or not there or here == there:
        return None
    return faults.cut([(here, there), (there, here)])


def flap(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The way between two machines comes and goes, every so many milliseconds."""
    here, there = target.machine, find(faults.world, other).machine
    if not here or not there or here == there:
        return None
    state: dict[str, Undo | None] = {"undo": None}
    over = False

    def toggle() -> None:
        if over:
            return
        undo = state["undo"]
        state["undo"] = faults.cut([(here, there), (there, here)]) if undo is None else undo() and None
        period = amount * MILLISECOND
        faults.world.timeline.after(int(period * faults.world.random.uniform(0.5, 1.5)), toggle)

    def stop() -> None:
        nonlocal over
        over = True
        undo = state["undo"]
        if undo is not None:
            undo()

    toggle()
    return stop


def cut_clients(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A machine is cut off from all clients."""
    here = target.machine
    clients = [each for each in sorted(faults.machines()) if each.startswith("client")]
    return faults.cut([(here, each) for each in clients] + [(each, here) for each in clients])


# --- coordination ----------------------------------------------------------------------------------------


def restart_coordinator(
    faults: Faults, target: Target, seconds: float, amount: float, other: str
) -> Undo | None:
    """The coordinator is killed, and started again from its disk afterwards."""
    world = faults.world
    if not world.coordinator.alive:
        return None
    world.coordinator.kill()
    return lambda: world.start_coordinator() and None if not world.coordinator.alive else None


def restore_coordinator(
    faults: Faults, target: Target, seconds: float, amount: float, other: str
) -> Undo | None:
    """The coordinator is restored from a copy so many versions old; the newest is put back afterwards."""
    world = faults.world
    if not world.coordinator.alive:
        return None
    world.coordinator.kill()
    disk = world.disk
    newest = disk.map
    disk.map = disk.copies[max(0, len(disk.copies) - 1 - int(amount))]
    world.timeline.after(100 * MILLISECOND, world.start_coordinator)

    def put_back() -> None:
        world.coordinator.kill()
        if newest.newer_than(disk.map):
            disk.map = newest
        world.start_coordinator()

    return put_back


def crash_at_write(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The coordinator dies at its next write, before (amount 0) or after the disk has it."""
    world = faults.world
    process = world.coordinator
    if not process.alive:
        return None
    process.crash_at_write = "after" if amount else "before"

    def restart() -> None:
        process.crash_at_write = ""
        if not world.coordinator.alive:
            world.start_coordinator()

    return restart


def slow_disk(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The coordinator's disk takes so many milliseconds for a write."""
    disk = faults.world.disk
    disk.write_ns = int(amount * MILLISECOND)

    def quick() -> None:
        disk.write_ns = int(faults.world.plan.disk_ms * 1e6)

    return quick


def lose_answers(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """The coordinator decides, and that many of its answers are lost: to the asker it timed out."""
    process = faults.world.coordinator
    process.lose_answers = int(amount)

    def stop() -> None:
        process.lose_answers = 0

    return stop


def stale_map(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A process is not told of changes of the map."""
    coordinator, process = faults.world.coordinator, target.process
    if isinstance(process, ActorProcess):
        identity = process.incarnation
    elif target.machine in faults.world.supervisors:
        identity = faults.world.supervisors[target.machine].identity
    else:
        return None
    coordinator.stale.add(identity)

    def tell() -> None:
        coordinator.stale.discard(identity)
        coordinator.disconnect(identity)

    return tell


# --- reconfiguration -------------------------------------------------------------------------------------


def add_node(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A node joins the cluster."""
    world = faults.world
    name = f"n{len(world.supervisors)}"
    if name in world.supervisors:
        return None
    world.start_node(name)
    return _nothing


def drain_node(faults: Faults, target: Target, seconds: float, amount: float, other: str) -> Undo | None:
    """A node is told to leave: it hands everything over, stops, and is taken out of the map."""
    world = faults.world
    staying = [each for each in world.supervisors.values() if each.state == "up" and not each.removed]
    supervisor = world.supervisors.get(target.machine)
    if supervisor is None or not supervisor.alive or supervisor not in staying or len(staying) < 2:
        return None
    supervisor.leave()
    return _nothing


KINDS: dict[str, Callable[[Faults, Target, float, float, str], Undo | None]] = {
    "kill actor": kill_actor,
    "kill actor for good": kill_for_good,
    "kill supervisor": kill_supervisor,
    "orphan a paused actor": orphan_paused,
    "crash node": crash_node,
    "pause": pause,
    "pause mid-step": pause_mid_step,
    "slow": slow,
    "kill client": kill_client,
    "jump wall clock": jump_clock,
    "change clock rate": change_rate,
    "lose packets": loss,
    "delay packets": delay,
    "queue at sender": queue,
    "reset connection": reset,
    "half-open connection": half_open,
    "lose the answer": repeat,
    "cut off": cut_off,
    "cut one way": cut_one_way,
    "cut between": cut_between,
    "flap": flap,
    "cut clients": cut_clients,
    "restart coordinator": restart_coordinator,
    "restore coordinator": restore_coordinator,
    "crash coordinator at write": crash_at_write,
    "slow disk": slow_disk,
    "lose coordinator answers": lose_answers,
    "stale map": stale_map,
    "add node": add_node,
    "drain node": drain_node,
}

LASTING = KINDS.keys() - {
    "kill actor",
    "jump wall clock",
    "reset connection",
    "half-open connection",
    "lose the answer",
    "add node",
    "drain node",
}
"""Kinds whose `seconds` mean something."""
