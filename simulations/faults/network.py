"""Faults of the network between machines, and of single connections."""

from simulations.faults.hits import Hit, Undo, nothing
from simulations.kernel.timeline import MILLISECOND, SECOND

# --- ways ------------------------------------------------------------------------------------------------


def loss(hit: Hit) -> Undo | None:
    """That share of packets to and from a machine is lost."""
    return hit.traffic(loss=hit.amount)


def delay(hit: Hit) -> Undo | None:
    """Packets to and from a machine take about so many milliseconds more, each its own."""
    return hit.traffic(jitter_ns=int(2 * hit.amount * MILLISECOND))


def queue(hit: Hit) -> Undo | None:
    """What a machine sends waits so many milliseconds in the senders' queues, where beacons overtake."""
    return hit.traffic(queue_ns=int(hit.amount * MILLISECOND))


def thin_line(hit: Hit) -> Undo | None:
    """What a machine sends leaves at so many bytes a second and connection; beacons overtake what waits."""
    return hit.traffic(back=False, bytes_per_second=max(1, int(hit.amount)))


def slow_snapshots(hit: Hit) -> Undo | None:
    """What crosses the snapshot connections of a machine takes so many milliseconds more."""
    return hit.traffic(delay_ns=int(hit.amount * MILLISECOND), tag="bulk")


def reset(hit: Hit) -> Undo | None:
    """A connection of a process breaks."""
    end = hit.some_end()
    if end is None:
        return None
    hit.network.break_connection(end)
    return nothing


def half_open(hit: Hit) -> Undo | None:
    """One side of a connection vanishes, the other is not told."""
    end = hit.some_end()
    if end is None:
        return None
    hit.network.half_open(end)
    return nothing


def renew(hit: Hit) -> Undo | None:
    """Other connections take the place of all that a process keeps open, as when certificates are renewed."""
    process = hit.target.process
    renewed = [link.renew() for link in list(process.links)] if process is not None and process.alive else []
    return nothing if any(renewed) else None


def read_late(hit: Hit) -> Undo | None:
    """A process reads one of its connections only afterwards, as when its answers there find no room.

    After that share (`amount`, 0: never) of the time the other side is told that the connection broke.
    """
    end, network = hit.some_end(), hit.network
    if end is None:
        return None
    network.leave_unread(end)
    if hit.amount:
        hit.stage.timeline.after(int(hit.seconds * hit.amount * SECOND), network.half_open, end.peer)
    return lambda: network.read_again(end)


def read_snapshots_late(hit: Hit) -> Undo | None:
    """A process reads what comes on its snapshot connections only afterwards."""
    process, network = hit.target.process, hit.network
    ends = [end for end in process.ends if end.tag == "bulk" and end.open] if process is not None else []
    for end in ends:
        network.leave_unread(end)

    def read_again() -> None:
        for end in ends:
            network.read_again(end)

    return read_again if ends else None


def repeat(hit: Hit) -> Undo | None:
    """The next thing that arrives at a process is acted on, and its answer lost: so it is sent again."""
    process = hit.target.process
    if process is None or not process.alive:
        return None
    struck = [end for end in process.ends if end.tag in ("client", "peer")]
    for end in struck:
        end.reply_lost = True
    return nothing if struck else None


def cut_off(hit: Hit) -> Undo | None:
    """A machine is cut off from all others."""
    return hit.cut(there=hit.elsewhere())


def cut_one_way(hit: Hit) -> Undo | None:
    """Nothing gets from a machine to the others, or (amount 1) from the others to it."""
    there = [hit.other_machine()] if hit.other else hit.elsewhere()
    return hit.cut(there=there, out=not hit.amount, back=bool(hit.amount))


def cut_between(hit: Hit) -> Undo | None:
    """Two machines are cut off from each other, and from nobody else."""
    here, there = hit.target.machine, hit.other_machine()
    if not here or not there or here == there:
        return None
    return hit.cut(there=[there])


def flap(hit: Hit) -> Undo | None:
    """The way between two machines comes and goes, every so many milliseconds."""
    here, there = hit.target.machine, hit.other_machine()
    if not here or not there or here == there:
        return None
    stage = hit.stage
    mend: Undo | None = None
    over = False

    def toggle() -> None:
        nonlocal mend
        if over:
            return
        if mend is None:
            mend = hit.cut(there=[there])
        else:
            mend()
            mend = None
        stage.timeline.after(int(hit.amount * MILLISECOND * stage.random.uniform(0.5, 1.5)), toggle)

    def stop() -> None:
        nonlocal over
        over = True
        if mend is not None:
            mend()

    toggle()
    return stop


def cut_clients(hit: Hit) -> Undo | None:
    """A machine is cut off from all clients."""
    return hit.cut(there=[each for each in hit.elsewhere() if each.startswith("client")])
