"""Faults of processes, machines and clocks, and nodes that come and go."""

import re

from simulations.cluster.actors import ActorProcess
from simulations.cluster.clients import ClientProcess
from simulations.faults.hits import Hit, Undo, nothing, setting
from simulations.faults.poison import KINDS
from simulations.kernel.timeline import MILLISECOND, SECOND

# --- processes -------------------------------------------------------------------------------------------


def kill_actor(hit: Hit) -> Undo | None:
    """SIGKILL to an actor; its supervisor sees it and starts another under the same slot."""
    if not isinstance(hit.target.process, ActorProcess) or not hit.target.process.alive:
        return None
    hit.target.process.kill()
    return nothing


def kill_for_good(hit: Hit) -> Undo | None:
    """SIGKILL to an actor that is not started again for so long."""
    supervisor = hit.stage.supervisors.get(hit.target.machine)
    if not isinstance(hit.target.process, ActorProcess) or not hit.target.process.alive or supervisor is None:
        return None
    supervisor.restarting = False
    hit.target.process.kill()
    return lambda: supervisor.restart_children() if supervisor.alive else None


def kill_supervisor(hit: Hit) -> Undo | None:
    """SIGKILL to a supervisor; its actors follow; another starts under the same name afterwards."""
    supervisor = hit.stage.supervisors.get(hit.target.machine)
    if supervisor is None or not supervisor.alive or supervisor.leaving:
        return None
    supervisor.kill()
    node = supervisor.node
    return lambda: hit.reach.operator.start_again(node)


def change_zone(hit: Hit) -> Undo | None:
    """A node is started again in another zone, or without one, as when its machine was moved."""
    stage = hit.stage
    supervisor = stage.supervisors.get(hit.target.machine)
    if supervisor is None or not supervisor.alive or supervisor.leaving or not stage.plan.zones:
        return None
    zones, node = sorted({*stage.plan.zones}), supervisor.node
    stage.zones[node] = zones[(zones.index(stage.zone_of(node)) + 1) % len(zones)]
    supervisor.kill()
    return lambda: hit.reach.operator.start_again(node)


def orphan_paused(hit: Hit) -> Undo | None:
    """A supervisor dies while an actor of its is stopped; another starts, then the orphan wakes up."""
    actor = hit.target.process
    supervisor = hit.stage.supervisors.get(hit.target.machine)
    if not isinstance(actor, ActorProcess) or not actor.alive or actor.paused or supervisor is None:
        return None
    if not supervisor.alive or supervisor.leaving:
        return None
    actor.pause()
    supervisor.kill()
    node, stage = supervisor.node, hit.stage

    stage.timeline.after(int(hit.amount * SECOND), hit.reach.operator.start_again, node)
    return actor.resume


def pause(hit: Hit) -> Undo | None:
    """SIGSTOP to a process, and SIGCONT afterwards."""
    process = hit.target.process
    if process is None or not process.alive or process.paused:
        return None
    process.pause()
    return process.resume


def pause_mid_step(hit: Hit) -> Undo | None:
    """SIGSTOP to an actor between a decision of its core and the sending of what was decided."""
    actor = hit.target.process
    if not isinstance(actor, ActorProcess) or not actor.alive or actor.paused:
        return None
    actor.hold_effects = True

    def resume() -> None:
        actor.hold_effects = False
        actor.resume()

    return resume


def poison(hit: Hit) -> Undo | None:
    """The next record that a primary applies of a shard crashes it (0), hangs it (1) or takes seconds (2)."""
    shard = re.fullmatch(r"primary of shard (\d+)", hit.target.name)
    if shard is None:
        return None
    hit.reach.poisons.arm(int(shard[1]) % hit.stage.plan.shards, KINDS[int(hit.amount)], hit.seconds)
    return nothing


def slow(hit: Hit) -> Undo | None:
    """A process takes so many milliseconds over everything."""
    process = hit.target.process
    if process is None or not process.alive:
        return None
    return setting(process, "cost_ns", int(hit.amount * MILLISECOND))


def kill_client(hit: Hit) -> Undo | None:
    """A client's process dies; another takes its place afterwards."""
    stage, client = hit.stage, hit.target.process
    if not isinstance(client, ClientProcess) or client not in stage.clients or not client.alive:
        return None
    number = stage.clients.index(client)
    client.kill()

    def start() -> None:
        stage.start_client(number)
        hit.reach.workload.client_died(client, number)

    return start


def fork_client(hit: Hit) -> Undo | None:
    """A client's process forks, and the child takes the place of another client."""
    stage, parent, former = hit.stage, hit.target.process, hit.other_process()
    if not isinstance(parent, ClientProcess) or not isinstance(former, ClientProcess) or parent is former:
        return None
    if not parent.alive or parent.paused or former not in stage.clients:
        return None
    place = stage.clients.index(former)
    former.kill()
    stage.start_client(place, parent)
    hit.reach.workload.client_died(former, place)
    return nothing


# --- clocks ----------------------------------------------------------------------------------------------


def jump_clock(hit: Hit) -> Undo | None:
    """The wall clock of a machine is set, by so many seconds."""
    machine = hit.network.machines.get(hit.target.machine)
    if machine is None:
        return None
    machine.wall_offset_us += int(hit.amount * 1e6)
    return nothing


def change_rate(hit: Hit) -> Undo | None:
    """The monotonic clock of a machine runs at that rate."""
    machine = hit.network.machines.get(hit.target.machine)
    if machine is None:
        return None
    former = machine.rate
    machine.set_rate(int(hit.amount * 1_000_000))
    return lambda: machine.set_rate(former)


# --- reconfiguration -------------------------------------------------------------------------------------


def add_node(hit: Hit) -> Undo | None:
    """A node joins the cluster."""
    stage = hit.stage
    name = f"n{len(stage.supervisors)}"
    if name in stage.supervisors:
        return None
    stage.start_node(name)
    return nothing


def forget_node(hit: Hit) -> Undo | None:
    """An operator takes a node that runs and keeps its shards on disk for gone, and has it forgotten."""
    stage = hit.stage
    supervisor = stage.supervisors.get(hit.target.machine)
    if supervisor is None or not supervisor.alive or supervisor.leaving:
        return None
    if stage.directories.durability(supervisor.node) == "none":
        return None  # it would lose what it has in memory
    hit.reach.operator.forget(supervisor.node)
    return nothing


def drain_node(hit: Hit) -> Undo | None:
    """A node is told to leave: it hands everything over, stops, and is taken out of the map."""
    stage = hit.stage
    staying = [each for each in stage.supervisors.values() if not each.leaving and not each.removed]
    supervisor = stage.supervisors.get(hit.target.machine)
    if supervisor is None or not supervisor.alive or supervisor not in staying or len(staying) < 2:
        return None
    supervisor.leave()
    return nothing
