"""Faults of etcd, and of the ways between it and the coordinators. Without etcd none of them strikes."""

from simulations.cluster.candidates import PREFIX, CandidateProcess
from simulations.cluster.etcd import EtcdMember
from simulations.faults.hits import Hit, Undo, nothing, setting
from simulations.kernel.timeline import SECOND

_LEADER = f"{PREFIX}/leader".encode()


def _member(hit: Hit) -> EtcdMember | None:
    member = hit.target.process
    return member if isinstance(member, EtcdMember) and member.alive else None


def crash_member(hit: Hit) -> Undo | None:
    """A member of etcd is killed, and started again afterwards, with all that it had."""
    etcd, member = hit.stage.etcd, _member(hit)
    if etcd is None or member is None:
        return None
    member.kill()
    return lambda: etcd.start(member.number)


def away(hit: Hit) -> Undo | None:
    """All members of etcd are stopped (0), or killed and started again afterwards."""
    etcd = hit.stage.etcd
    if etcd is None:
        return None
    for member in etcd.members:
        if hit.amount:
            member.kill()
        elif member.alive:
            member.pause()

    def back() -> None:
        for member in etcd.members:
            member.resume()
            etcd.start(member.number)

    return back


def cut_off(hit: Hit) -> Undo | None:
    """A coordinator is cut off from all members of etcd, and from nobody else."""
    etcd = hit.stage.etcd
    if etcd is None or not isinstance(hit.target.process, CandidateProcess):
        return None
    return hit.cut(there=[member.machine.name for member in etcd.members])


def cut_off_from_nodes(hit: Hit) -> Undo | None:
    """A coordinator on etcd is cut off from all nodes, and from nobody else."""
    if not isinstance(hit.target.process, CandidateProcess):
        return None
    return hit.cut(there=sorted(hit.stage.supervisors))


def stop_coordinator(hit: Hit) -> Undo | None:
    """A coordinator is told to end, and started again afterwards."""
    process = hit.target.process
    if not isinstance(process, CandidateProcess) or not process.alive:
        return None
    process.tell(0, process.leave)

    def start() -> None:
        process.kill()
        hit.stage.start_coordinators()

    return start


def lose_answers(hit: Hit) -> Undo | None:
    """The next so many transactions that write are carried out, and nobody is told."""
    etcd = hit.stage.etcd
    return None if etcd is None else setting(etcd, "unanswered", int(hit.amount))


def carry_out_late(hit: Hit) -> Undo | None:
    """The next so many transactions that write are carried out so much later, given up or not."""
    etcd = hit.stage.etcd
    if etcd is None:
        return None
    etcd.late_ns = int(hit.seconds * SECOND)
    return setting(etcd, "late", int(hit.amount))


def elect(hit: Hit) -> Undo | None:
    """Another member of etcd is elected: leases begin anew, and end later than it was said."""
    etcd = hit.stage.etcd
    if etcd is None:
        return None
    etcd.elect_another()
    return nothing


def end_lease(hit: Hit) -> Undo | None:
    """The lease of the coordinator that leads ends at once, as when somebody revokes it."""
    etcd = hit.stage.etcd
    held = None if etcd is None else etcd.store.keys.get(_LEADER)
    if etcd is None or held is None:
        return None
    etcd.store.revoke(held.lease)
    return nothing


def stay_behind(hit: Hit) -> Undo | None:
    """A member of etcd hears of nothing new yet, so that its watches tell late."""
    member = _member(hit)
    if member is None or member.behind:
        return None
    member.behind = True
    return lambda: member.catch_up() if member.alive else None


def silence(hit: Hit) -> Undo | None:
    """The watches at a member of etcd stay open and say nothing."""
    member = _member(hit)
    return None if member is None else setting(member, "silent", value=True)
