"""Faults of the disks to which actors write."""

from collections.abc import Sequence

from simulations.cluster.actors import ActorProcess
from simulations.faults.hits import Hit, Undo
from simulations.kernel.disk import Directory
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, SECOND


def _directory(hit: Hit) -> Directory | None:
    actor = hit.target.process
    return hit.stage.directories.of(actor.slot) if isinstance(actor, ActorProcess) else None


def fail_sync(hit: Hit) -> Undo | None:
    """Each sync of an actor's disk fails, which ends the actor."""
    directory = _directory(hit)
    if directory is None:
        return None
    directory.failing = True

    def mend() -> None:
        directory.failing = False

    return mend


def hang_sync(hit: Hit) -> Undo | None:
    """No sync of an actor's disk ends."""
    directory = _directory(hit)
    if directory is None:
        return None
    directory.hang()
    return directory.go_on


def slow_sync(hit: Hit) -> Undo | None:
    """A sync of an actor's disk takes about so many milliseconds."""
    directory = _directory(hit)
    if directory is None:
        return None
    directory.sync_ns = int(hit.amount * MILLISECOND)

    def quick() -> None:
        directory.sync_ns = int(hit.stage.plan.sync_ms * MILLISECOND)

    return quick


def roll_back(hit: Hit) -> Undo | None:
    """While an actor is down, its directory is replaced by a copy so many seconds old.

    If that was noticed, an operator puts the newest back afterwards.
    """
    directory, stage = _directory(hit), hit.stage
    if directory is None or directory.behind is not None:
        return None
    backup = directory.copy()
    over, opened = False, 0

    def put_back() -> None:
        nonlocal opened
        if over or stage.directories.of(directory.place) is not directory:
            return
        opened = len(directory.openers)
        if directory.owner is not None:
            directory.owner.kill()
        newest = directory.copy()
        if newest.synced > backup.synced and directory.behind is None:
            directory.put_back(backup)
            directory.behind = newest
            stage.network.happened["directory rolled back"] += 1

    def put_right() -> None:
        nonlocal over
        over = True
        newest, owner = directory.behind, directory.owner
        directory.behind = None
        if newest is None:
            return
        if _is_registered(hit, directory, directory.openers[opened:]):
            directory.taken_back = True
            stage.network.happened["older copy not noticed"] += 1
            return
        if owner is not None:
            owner.kill()
        directory.put_back(newest)
        stage.network.happened["newest copy put back"] += 1

    stage.timeline.after(int(hit.amount * SECOND), put_back)
    return put_right


def _is_registered(hit: Hit, directory: Directory, openers: Sequence[Process]) -> bool:
    """Whether any of these, which have opened the directory, was taken in by the coordinator."""
    incarnations = {each.incarnation for each in openers if isinstance(each, ActorProcess)}
    return any(
        entry.directory == directory.identity and entry.incarnation in incarnations
        for entry in hit.stage.map.actors.values()
    )
