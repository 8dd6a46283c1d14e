"""All kinds of faults, and their healing.

A fault strikes a target (see `targets`), lasts `seconds`, and is taken back then, or when the world heals.
What has no duration heals by itself. The table `KINDS` at the end is the list of all kinds; what each does is
the first line of its function, in a module beside this one. Seeds draw a new kind once `plans.generation`, or
`plans.durable` for disks, names it, and says whom it strikes, for how long and how hard.
"""

from collections.abc import Callable

from simulations.faults import coordination, copies, disks, etcd, network, power, processes, tokens
from simulations.faults.hits import Hit, Reach, Undo
from simulations.faults.targets import Target, find
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, SECOND
from simulations.plans.plan import Fault


class Faults:
    """Injects faults into one world and takes them back."""

    def __init__(self, reach: Reach) -> None:
        self.stage = reach.stage
        self.network = reach.stage.network
        self._reach = reach
        self._open: dict[int, Undo] = {}
        self._numbers = 0

    def schedule(self, faults: tuple[Fault, ...]) -> None:
        """Have faults strike at their times from now."""
        for fault in faults:
            self.stage.timeline.after(int(fault.at_ms * MILLISECOND), self._due, fault)

    def _due(self, fault: Fault) -> None:
        if not self.stage.healing:
            self.inject(
                fault.kind, fault.target, seconds=fault.seconds, amount=fault.amount, other=fault.other
            )

    def inject(
        self, kind: str, target: str, *, seconds: float = 0.0, amount: float = 0.0, other: str = ""
    ) -> None:
        """Let a fault strike now. What it cannot find it spares. Raises KeyError for an unknown kind."""
        stage = self.stage
        found = find(stage, target or "coordinator")
        stage.note(f"FAULT {kind}: {found!r} {other} for {seconds:g} s, {amount:g}")
        undo = KINDS[kind](Hit(self._reach, found, seconds, amount, other))
        if undo is None:
            return
        self.network.happened[kind] += 1
        lasts = seconds if kind in LASTING else 0.0
        where = [found.machine or found.name, *([find(stage, other).machine] if other else [])]
        stage.recording.struck(kind, " and ".join(where), stage.seconds, lasts)
        self._numbers += 1
        self._open[self._numbers] = undo
        if seconds:
            stage.timeline.after(int(seconds * SECOND), self._take_back, self._numbers)

    def victim(self, name: str) -> "Victim":
        """Return what a name stands for now, to be struck by hand."""
        found = find(self.stage, name)
        return Victim(self, found.name, found.process, found.machine)

    def _take_back(self, number: int) -> None:
        undo = self._open.pop(number, None)
        if undo is not None:
            undo()

    def heal(self) -> None:
        """Take everything back, and start whatever should run."""
        for number in sorted(self._open):
            self._take_back(number)
        stage = self.stage
        self._reach.poisons.disarm()
        self.network.mend_all()
        stage.disk.write_ns = int(stage.plan.disk_ms * 1e6)
        if stage.etcd is not None:
            stage.etcd.heal()
            stage.etcd.commit_ns = stage.disk.write_ns
        stage.start_coordinators()
        for coordinator in stage.coordinators:
            coordinator.crash_at_write = ""
            coordinator.lose_answers = 0
        for supervisor in list(stage.supervisors.values()):
            self._reach.operator.start_again(supervisor.node)


class Victim(Target):
    """A target, with the faults that stories strike it with by hand."""

    def __init__(self, faults: Faults, name: str, process: Process | None, machine: str) -> None:
        super().__init__(name, process, machine)
        self._faults = faults

    def strike(self, kind: str, *, seconds: float = 0.0, amount: float = 0.0, other: str = "") -> None:
        """Inject a fault of that kind now."""
        self._faults.inject(kind, self.name, seconds=seconds, amount=amount, other=other)

    def pause(self, seconds: float) -> None:
        """Stop the process for so long."""
        self.strike("pause", seconds=seconds)

    def kill(self) -> None:
        """End an actor; its supervisor starts another."""
        self.strike("kill actor")

    def cut(self, seconds: float, *, other: str = "", one_way: bool = False) -> None:
        """Cut the machine off from all others, or from one."""
        kind = "cut one way" if one_way else "cut between" if other else "cut off"
        self.strike(kind, seconds=seconds, other=other)


KINDS: dict[str, Callable[[Hit], Undo | None]] = {
    "kill actor": processes.kill_actor,
    "kill actor for good": processes.kill_for_good,
    "kill supervisor": processes.kill_supervisor,
    "change zone": processes.change_zone,
    "orphan a paused actor": processes.orphan_paused,
    "crash node": power.crash_node,
    "pause": processes.pause,
    "pause mid-step": processes.pause_mid_step,
    "slow": processes.slow,
    "poison": processes.poison,
    "kill client": processes.kill_client,
    "fork client": processes.fork_client,
    "replace token": tokens.replace_token,
    "jump wall clock": processes.jump_clock,
    "change clock rate": processes.change_rate,
    "lose packets": network.loss,
    "delay packets": network.delay,
    "queue at sender": network.queue,
    "reset connection": network.reset,
    "half-open connection": network.half_open,
    "renew links": network.renew,
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
    "crash etcd member": etcd.crash_member,
    "etcd away": etcd.away,
    "cut off from etcd": etcd.cut_off,
    "cut off from nodes": etcd.cut_off_from_nodes,
    "stop coordinator": etcd.stop_coordinator,
    "lose etcd answers": etcd.lose_answers,
    "carry out late": etcd.carry_out_late,
    "elect another member": etcd.elect,
    "end lease": etcd.end_lease,
    "member behind": etcd.stay_behind,
    "silent watches": etcd.silence,
    "add node": processes.add_node,
    "drain node": processes.drain_node,
    "forget node": processes.forget_node,
    "crash all nodes": power.crash_all_nodes,
    "lose disks": power.lose_disks,
    "kill shard": power.kill_shard,
    "fail sync": disks.fail_sync,
    "hang sync": disks.hang_sync,
    "slow sync": disks.slow_sync,
    "fill disk": disks.fill_disk,
    "flip bit": disks.flip_bit,
    "roll back directory": copies.roll_back,
    "move directory": copies.move,
    "clone directory": copies.clone,
}

LASTING = KINDS.keys() - {
    "kill actor",
    "jump wall clock",
    "reset connection",
    "half-open connection",
    "renew links",
    "lose the answer",
    "add node",
    "drain node",
    "forget node",
    "kill shard",
    "replace token",
    "elect another member",
    "end lease",
    "fork client",
}
"""Kinds whose `seconds` mean something."""
