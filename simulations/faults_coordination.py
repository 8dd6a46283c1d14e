"""Faults of the coordinator, its disk, and of who hears of its decisions."""

from msgspec.structs import replace

from greenroom_cluster.coordination.genesis import first_map
from simulations.actors import ActorProcess
from simulations.clients import ClientProcess
from simulations.connections import CLUSTER
from simulations.coordination import Disk
from simulations.hits import Hit, Undo
from simulations.supervisors import SupervisorProcess
from simulations.timeline import MILLISECOND


def restart_coordinator(hit: Hit) -> Undo | None:
    """The coordinator is killed, and started again from its disk afterwards.

    With an amount its host boots as well, so that nothing proves any more that the disk has the newest map.
    """
    world = hit.world
    if not world.coordinator.alive:
        return None
    world.coordinator.kill()
    if hit.amount:
        world.disk.vouched = None

    def restart() -> None:
        if not world.coordinator.alive:
            world.start_coordinator()

    return restart


def restore_coordinator(hit: Hit) -> Undo | None:
    """The coordinator is restored from a copy so many versions old; the newest is put back afterwards."""
    world = hit.world
    if not world.coordinator.alive:
        return None

    def start() -> None:
        world.start_coordinator()

    world.coordinator.kill()
    disk = world.disk
    newest = disk.map
    disk.map = disk.copies[max(0, len(disk.copies) - 1 - int(hit.amount))]
    world.timeline.after(100 * MILLISECOND, start)

    def put_back() -> None:
        world.coordinator.kill()
        if not disk.map.continues(newest):
            disk.map = newest
        world.start_coordinator()

    return put_back


def crash_at_write(hit: Hit) -> Undo | None:
    """The coordinator dies at its next write, before (amount 0) or after the disk has it."""
    world = hit.world
    process = world.coordinator
    if not process.alive:
        return None
    process.crash_at_write = "after" if hit.amount else "before"

    def restart() -> None:
        process.crash_at_write = ""
        if not world.coordinator.alive:
            world.start_coordinator()

    return restart


def slow_disk(hit: Hit) -> Undo | None:
    """The coordinator's disk takes so many milliseconds for a write."""
    disk = hit.world.disk
    disk.write_ns = int(hit.amount * MILLISECOND)

    def quick() -> None:
        disk.write_ns = int(hit.world.plan.disk_ms * 1e6)

    return quick


def lose_answers(hit: Hit) -> Undo | None:
    """The coordinator decides, and that many of its answers are lost: to the asker it timed out."""
    process = hit.world.coordinator
    process.lose_answers = int(hit.amount)

    def stop() -> None:
        process.lose_answers = 0

    return stop


def stale_map(hit: Hit) -> Undo | None:
    """A process is not told of changes of the map: an actor, a supervisor or a client."""
    coordinator, process = hit.world.coordinator, hit.target.process
    if isinstance(process, ClientProcess):
        return _stale_client(hit, process)
    if isinstance(process, ActorProcess):
        identity = process.incarnation
    elif hit.target.machine in hit.world.supervisors:
        identity = hit.world.supervisors[hit.target.machine].identity
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
    world = hit.world
    left = hit.target.machine if hit.target.machine in world.supervisors else ""
    others = [name for name in world.supervisors if name != left]
    world.coordinator.kill()
    for name in others:
        _end_node(hit, name)
    former = world.disk.map
    anew = first_map(CLUSTER, former.shard_count, former.replicas, world.random.randbytes(16))
    # It may have lived for longer than the former one did, or not.
    anew = replace(anew, version=world.random.randrange(1, 3 * former.version))
    write_ns, world.disk = world.disk.write_ns, Disk(anew)
    world.disk.write_ns = write_ns
    world.oracles.began_anew(left)

    def start() -> None:
        if not world.coordinator.alive:
            world.start_coordinator()
        for name in others:
            world.start_node(name)

    world.timeline.after(500 * MILLISECOND, start)

    def end_what_is_left() -> None:
        start()
        if left:
            world.oracles.left = ""
            _end_node(hit, left)
            world.start_node(left)

    return end_what_is_left


def _end_node(hit: Hit, name: str) -> None:
    supervisor = hit.world.supervisors[name]
    for actor in list(supervisor.children.values()):
        actor.kill()
    supervisor.kill()
