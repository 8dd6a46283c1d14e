"""Every kind of fault, and how it is healed.

A fault strikes a target (see `targets`), lasts `seconds`, and is taken back then, or when the world heals.
What has no duration heals by itself. The table `KINDS` at the end is the list of all kinds; what each does is
the first line of its function, in `faults_network`, `faults_processes` and `faults_coordination`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from greenroom import wire
from greenroom_cluster.coordination.messages import Accepted, ForgetNode, Rejected
from simulations import faults_coordination as coordination
from simulations import faults_network as network
from simulations import faults_processes as processes
from simulations.coordinator_links import CoordinatorLink
from simulations.hits import Hit, Undo
from simulations.plans import Fault
from simulations.processes import Process
from simulations.targets import find
from simulations.timeline import MILLISECOND, SECOND

if TYPE_CHECKING:
    from simulations.world import World


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
        undo = KINDS[kind](Hit(self, found, seconds, amount, other))
        if undo is None:
            return
        self.network.happened[kind] += 1
        lasts = seconds if kind in LASTING else 0.0
        where = [found.machine or found.name, *([find(world, other).machine] if other else [])]
        world.recording.struck(kind, " and ".join(where), world.seconds, lasts)
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
        world.poisons.disarm()
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
            identity = world.random.randbytes(16)
            self._operator = CoordinatorLink(process, world.codec, identity, wire.ROLE_OPERATOR)
            self._operator.start()

        def answered(reply: Accepted | Rejected | None) -> None:
            if isinstance(reply, Accepted) or (reply is not None and "no node" in reply.reason):
                self._rebooting.discard(node)
                world.start_node(node)
            else:
                world.timeline.after(300 * MILLISECOND, self.forget_and_restart, node)

        self._operator.call(lambda number: ForgetNode(number, node), answered)


KINDS: dict[str, Callable[[Hit], Undo | None]] = {
    "kill actor": processes.kill_actor,
    "kill actor for good": processes.kill_for_good,
    "kill supervisor": processes.kill_supervisor,
    "orphan a paused actor": processes.orphan_paused,
    "crash node": processes.crash_node,
    "pause": processes.pause,
    "pause mid-step": processes.pause_mid_step,
    "slow": processes.slow,
    "poison": processes.poison,
    "kill client": processes.kill_client,
    "jump wall clock": processes.jump_clock,
    "change clock rate": processes.change_rate,
    "lose packets": network.loss,
    "delay packets": network.delay,
    "queue at sender": network.queue,
    "reset connection": network.reset,
    "half-open connection": network.half_open,
    "lose the answer": network.repeat,
    "cut off": network.cut_off,
    "cut one way": network.cut_one_way,
    "cut between": network.cut_between,
    "flap": network.flap,
    "cut clients": network.cut_clients,
    "thin line": network.thin_line,
    "slow snapshots": network.slow_snapshots,
    "read snapshots late": network.read_snapshots_late,
    "read a connection late": network.read_late,
    "restart coordinator": coordination.restart_coordinator,
    "restore coordinator": coordination.restore_coordinator,
    "crash coordinator at write": coordination.crash_at_write,
    "slow disk": coordination.slow_disk,
    "lose coordinator answers": coordination.lose_answers,
    "stale map": coordination.stale_map,
    "begin anew": coordination.begin_anew,
    "add node": processes.add_node,
    "drain node": processes.drain_node,
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
