"""Machines that lose power, one or all, and shards whose members all end at once."""

from functools import partial

from simulations.cluster.actors import ActorProcess
from simulations.cluster.supervisors import SupervisorProcess
from simulations.faults.hits import Hit, Undo, nothing
from simulations.kernel.timeline import SECOND

_BOOT_SECONDS = 1.0


def crash_node(hit: Hit) -> Undo | None:
    """A machine loses power; it boots again afterwards.

    If it keeps nothing on disk, an operator has it forgotten first.
    """
    supervisor = hit.stage.supervisors.get(hit.target.machine)
    if supervisor is None or not _cut(hit, supervisor):
        return None
    return lambda: _boot(hit, supervisor, forget=False)


def crash_all_nodes(hit: Hit) -> Undo | None:
    """All machines lose power at once, and boot again one after the other.

    With an amount those of coordinators and etcd do, too; above 1 the disk of a coordinator with a file is
    lost, so that the map is made anew of what the others have on theirs. No node is forgotten that keeps
    something on disk.
    """
    stage = hit.stage
    if hit.amount and stage.coordinator.alive:
        for process in [*stage.coordinators, *([] if stage.etcd is None else stage.etcd.members)]:
            process.kill()
        stage.disk.vouched = None
        if hit.amount > 1 and stage.etcd is None:
            stage.disk.lose()
            hit.reach.oracles.marks_lost()
    cut = [supervisor for supervisor in list(stage.supervisors.values()) if _cut(hit, supervisor)]

    def boot() -> None:
        if stage.etcd is not None:
            stage.etcd.start_all()
        stage.start_coordinators()
        for supervisor in cut:
            delay = int(stage.random.random() * _BOOT_SECONDS * SECOND)
            stage.timeline.after(delay, partial(_boot, hit, supervisor, forget=False))
        hit.reach.operator.watch_adoption()

    return boot


def lose_disks(hit: Hit) -> Undo | None:
    """A machine is gone with its disks; an operator has it forgotten, and starts it with new ones."""
    stage = hit.stage
    supervisor = stage.supervisors.get(hit.target.machine)
    lost = [] if supervisor is None else stage.directories.of_node(supervisor.node)
    if supervisor is None or not lost or any(each.cloned for each in lost) or not _cut(hit, supervisor):
        return None
    for directory in lost:
        stage.directories.replace(directory.slot)

    def boot() -> None:
        _boot(hit, supervisor, forget=True)
        hit.reach.operator.give_up(supervisor.node, {each.identity for each in lost})

    return boot


def kill_shard(hit: Hit) -> Undo | None:
    """SIGKILL to all members of a shard; their supervisors start others."""
    stage, actor = hit.stage, hit.target.process
    if not isinstance(actor, ActorProcess):
        return None
    shard = int(hit.target.name.rpartition(" ")[2]) % stage.plan.shards
    for member in stage.map.shards[shard].members:
        stage.actors[member].kill()
    return nothing


def _cut(hit: Hit, supervisor: SupervisorProcess) -> bool:
    """Cut the power of a node's machine; return False if there is nothing to cut."""
    machine, stage = supervisor.machine, hit.stage
    if not machine.up or supervisor.removed or supervisor.leaving:
        return False
    machine.up = False
    for actor in stage.actors.values():
        if actor.machine is machine and actor.alive:
            actor.vanish()
    if supervisor.alive:
        supervisor.vanish()
    for directory in stage.directories.of_node(supervisor.node):
        if directory.lose_power():
            stage.network.happened["written, lost with the power"] += 1
    return True


def _boot(hit: Hit, supervisor: SupervisorProcess, *, forget: bool) -> None:
    machine, node = supervisor.machine, supervisor.node
    machine.up = True
    machine.boot += 1
    if forget or hit.stage.directories.durability(node) == "none":
        hit.reach.operator.forget_and_restart(node)
    else:
        hit.reach.operator.start_again(node)
