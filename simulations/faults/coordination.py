"""Faults of the coordinator, of its disk, and of those that follow its map."""

from msgspec.structs import replace

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map, starting_map
from simulations.cluster.actors import ActorProcess
from simulations.cluster.clients import ClientProcess
from simulations.cluster.connections import CLUSTER
from simulations.cluster.coordination import Disk
from simulations.cluster.serving import Coordinating
from simulations.cluster.supervisors import SupervisorProcess
from simulations.faults.hits import Hit, Undo, setting
from simulations.kernel.timeline import MILLISECOND


def _struck(hit: Hit) -> Coordinating | None:
    """Return the coordinator that is struck, if it runs."""
    process = hit.target.process
    return process if isinstance(process, Coordinating) and process.alive else None


def restart_coordinator(hit: Hit) -> Undo | None:
    """The coordinator is killed, and started again from its disk, or etcd, afterwards.

    With an amount its host boots as well, so that nothing proves any more that the disk has the newest map.
    """
    stage, process = hit.stage, _struck(hit)
    if process is None:
        return None
    process.kill()
    if hit.amount:
        stage.disk.vouched = None
    return stage.start_coordinators


def restore_coordinator(hit: Hit) -> Undo | None:
    """The coordinator is restored from a copy so many versions old; the newest is put back afterwards.

    If something was decided on the copy that the newest lacks, a new lineage begins from both.

    There is no such copy of what is in etcd.
    """
    stage = hit.stage
    if stage.etcd is not None or not stage.coordinator.alive:
        return None

    def start() -> None:
        stage.start_coordinator()
        hit.reach.operator.forget_who_left()

    stage.coordinator.kill()
    disk = stage.disk
    newest, marks = disk.map, disk.marks
    disk.map, disk.marks = disk.copies[max(0, len(disk.copies) - 1 - int(hit.amount))]
    stage.timeline.after(100 * MILLISECOND, start)

    def put_back() -> None:
        stage.coordinator.kill()
        restored = disk.map
        if not restored.continues(newest):
            disk.map, disk.marks = newest, marks
            if _has_decided_since(restored, newest):
                # No node refused it, and each map has what the other lacks: docs/how-to/deploy.md.
                stage.network.happened["new lineage"] += 1
                disk.map = starting_map(newest, ClusterOptions(CLUSTER, new_lineage=True), [restored])
                disk.vouched = disk.map
            hit.reach.oracles.marks_lost()
            hit.reach.operator.say_again()
        stage.start_coordinator()
        hit.reach.operator.forget_who_left()

    return put_back


def _has_decided_since(restored: ClusterMap, newest: ClusterMap) -> bool:
    """Whether the coordinator has decided on the restored map what the newest one lacks.

    It decides about a shard once it has heard all its members. If all nodes lost their power, none of them
    need know the newest map, and so none refuses the other.
    """
    pairs = zip(restored.shards, newest.shards, strict=True)
    return any(mine.epoch > theirs.epoch for mine, theirs in pairs)


def crash_at_write(hit: Hit) -> Undo | None:
    """The coordinator dies at its next write, before (amount 0) or after the disk has it, or it was sent."""
    stage, process = hit.stage, _struck(hit)
    if process is None:
        return None
    process.crash_at_write = "after" if hit.amount else "before"

    def restart() -> None:
        process.crash_at_write = ""
        stage.start_coordinators()

    return restart


def slow_disk(hit: Hit) -> Undo | None:
    """The coordinator's disk, or those of etcd, take so many milliseconds for a write."""
    stage, disk = hit.stage, hit.stage.disk

    def take(milliseconds: float) -> None:
        disk.write_ns = int(milliseconds * MILLISECOND)
        if stage.etcd is not None:
            stage.etcd.commit_ns = disk.write_ns

    take(hit.amount)
    return lambda: take(stage.plan.disk_ms)


def lose_answers(hit: Hit) -> Undo | None:
    """The coordinator decides, and that many of its answers are lost: to the asker it timed out."""
    process = hit.target.process
    if not isinstance(process, Coordinating):
        return None
    return setting(process, "lose_answers", int(hit.amount))


def stale_map(hit: Hit) -> Undo | None:
    """A process is not told of changes of the map: an actor, a supervisor or a client."""
    coordinator, process = hit.stage.coordinator, hit.target.process
    if isinstance(process, ClientProcess):
        return _stale_client(hit, process)
    if isinstance(process, ActorProcess):
        identity = process.incarnation
    elif hit.target.machine in hit.stage.supervisors:
        identity = hit.stage.supervisors[hit.target.machine].identity
    else:
        return None
    coordinator.stale.add(identity)

    def tell() -> None:
        coordinator.stale.discard(identity)
        coordinator.disconnect(identity)

    return tell


def _stale_client(hit: Hit, client: ClientProcess) -> Undo:
    subscriptions = [end for end in client.ends if isinstance(end.peer.process, SupervisorProcess)]
    for end in subscriptions:
        hit.network.leave_unread(end)

    def tell() -> None:
        for end in subscriptions:
            hit.network.read_again(end)

    return tell


def begin_anew(hit: Hit) -> Undo | None:
    """The cluster ends, and another is created at its addresses half a second later.

    With a node as target that one is left over: it runs on until the fault is over, and is started anew then.
    """
    stage = hit.stage
    if stage.etcd is not None:
        return None
    left = hit.target.machine if hit.target.machine in stage.supervisors else ""
    others = [name for name in stage.supervisors if name != left]
    stage.coordinator.kill()
    for name in others:
        _end_node(hit, name)
    former = stage.disk.map
    anew = first_map(CLUSTER, former.shard_count, former.replicas, stage.random.randbytes(16))
    # It may have lived for longer than the former one did, or not.
    anew = replace(anew, version=stage.random.randrange(1, 3 * former.version))
    write_ns, stage.disk = stage.disk.write_ns, Disk(anew)
    stage.disk.write_ns = write_ns
    hit.reach.oracles.began_anew(left)

    def start() -> None:
        if not stage.coordinator.alive:
            stage.start_coordinator()
        for name in others:
            stage.start_node(name)

    stage.timeline.after(500 * MILLISECOND, start)

    def end_what_is_left() -> None:
        start()
        if left:
            hit.reach.oracles.left = ""
            _end_node(hit, left)
            stage.start_node(left)

    return end_what_is_left


def _end_node(hit: Hit, name: str) -> None:
    supervisor = hit.stage.supervisors[name]
    for actor in list(supervisor.children.values()):
        actor.kill()
    supervisor.kill()
