"""Directories that are put back, moved, or copied to another place."""

from simulations.cluster.actors import ActorProcess
from simulations.faults.disks import directory_of, is_registered
from simulations.faults.hits import Hit, Undo
from simulations.kernel.directory import Directory
from simulations.kernel.timeline import SECOND

_WHERE = ("inode", "filesystem", "machine")


def roll_back(hit: Hit) -> Undo | None:
    """While an actor is down, its directory is replaced by a copy so many seconds old.

    With a negative amount that is another directory, which shows. If the copy was noticed, an operator puts
    the newest back afterwards.
    """
    directory, stage = directory_of(hit), hit.stage
    if directory is None or directory.behind is not None:
        return None
    backup = directory.copy()
    over, rolled, opened, lies = False, False, 0, directory.lies

    def put_back() -> None:
        nonlocal opened, rolled
        if over or directory.behind is not None or stage.directories.of(directory.slot) is not directory:
            return
        opened = len(directory.openers)
        if directory.owner is not None:
            directory.owner.kill()
        newest = directory.copy()
        if newest.synced > backup.synced:
            rolled = True
            directory.put_back(backup)
            directory.behind = newest
            if hit.amount < 0:
                directory.move("inode")
            stage.network.happened["directory rolled back"] += 1

    def put_right() -> None:
        nonlocal over
        over = True
        newest, owner = directory.behind, directory.owner
        if newest is None or not rolled:  # what another such fault has done, that puts right
            return
        directory.behind = None
        if is_registered(hit, directory, opened):
            directory.taken_back = True
            stage.network.happened["older copy not noticed"] += 1
            return
        if owner is not None:
            owner.kill()
        directory.put_back(newest)
        # Else it lies where it is, to which it may have been moved meanwhile, or where it was told to count.
        if hit.amount < 0 and not directory.counts_here:
            directory.lies = lies
        stage.network.happened["newest copy put back"] += 1

    stage.timeline.after(int(abs(hit.amount) * SECOND), put_back)
    return put_right


def move(hit: Hit) -> Undo | None:
    """An actor is killed, and its directory copied: to another inode (0), file system (1), or machine (2).

    An operator says afterwards that it counts where it is.
    """
    directory = directory_of(hit)
    if directory is None or directory.owner is None:
        return None
    directory.owner.kill()
    directory.move(_WHERE[int(hit.amount)])
    return directory.adopt


def clone(hit: Hit) -> Undo | None:
    """Another actor is killed, and for a while gets a copy of the target's directory in place of its own."""
    stage, directory = hit.stage, directory_of(hit)
    other = hit.other_process()
    if directory is None or not isinstance(other, ActorProcess) or other.slot == directory.slot:
        return None
    own = stage.directories.of(other.slot)
    if own is None or own.cloned:
        return None
    copy = Directory(other.slot, directory.identity, stage.random, own.sync_ns)
    copy.cloned = True
    copy.known = directory.known
    copy.put_back(directory.copy())
    other.kill()
    stage.directories.put(copy)

    def put_right() -> None:
        if stage.directories.of(other.slot) is copy:
            if copy.owner is not None:
                copy.owner.kill()
            stage.directories.put(own)

    return put_right
