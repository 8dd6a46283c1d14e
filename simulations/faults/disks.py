"""Faults of the disks to which actors write."""

from simulations.cluster.actors import ActorProcess
from simulations.faults.hits import Hit, Undo, setting
from simulations.kernel.directory import FLIPS, Directory
from simulations.kernel.timeline import MILLISECOND


def directory_of(hit: Hit) -> Directory | None:
    """Return the directory to which the target writes; None if it has none of its own."""
    actor = hit.target.process
    directory = hit.stage.directories.of(actor.slot) if isinstance(actor, ActorProcess) else None
    return None if directory is None or directory.cloned else directory


def fail_sync(hit: Hit) -> Undo | None:
    """Each sync of an actor's disk fails, which ends the actor."""
    directory = directory_of(hit)
    return None if directory is None else setting(directory, "failing", value=True)


def hang_sync(hit: Hit) -> Undo | None:
    """No sync of an actor's disk ends."""
    directory = directory_of(hit)
    if directory is None:
        return None
    directory.hang()
    return directory.go_on


def slow_sync(hit: Hit) -> Undo | None:
    """A sync of an actor's disk takes about so many milliseconds."""
    directory = directory_of(hit)
    if directory is None:
        return None
    directory.sync_ns = int(hit.amount * MILLISECOND)

    def quick() -> None:
        directory.sync_ns = int(hit.stage.plan.sync_ms * MILLISECOND)

    return quick


def fill_disk(hit: Hit) -> Undo | None:
    """There is room for so many more bytes on an actor's disk, of which it hears now and then."""
    directory = directory_of(hit)
    if directory is None:
        return None
    directory.room = int(hit.amount)

    def make_room() -> None:
        directory.room = None

    return make_room


def flip_bit(hit: Hit) -> Undo | None:
    """A bit flips in what is stable, and the actor is killed.

    It is in the tail (0), the middle (1) or a snapshot (2). An operator gives up what turned out to be
    damaged.
    """
    stage, directory = hit.stage, directory_of(hit)
    if directory is None or not directory.flip(FLIPS[int(hit.amount)]):
        return None
    known, opened = directory.identity, len(directory.openers)
    if directory.owner is not None:
        directory.owner.kill()

    def give_up() -> None:
        directory.unflip()
        since = len(directory.openers) > opened
        if directory.lacks and since and not is_registered(hit, directory, opened):
            # What it lacks was seen of it before, so nobody takes it in. Its writer may still be in the map.
            if directory.owner is not None:
                directory.owner.kill()
            stage.directories.replace(directory.slot)
        if known in stage.directories.gone:
            hit.reach.operator.give_up(directory.slot.partition("/")[0], {known})

    return give_up


def is_registered(hit: Hit, directory: Directory, since: int = 0) -> bool:
    """Whether any process that has opened it, but so many before, was taken in by the coordinator.

    It counts what processes were told too: the map may have been lost since.
    """
    openers = [each for each in directory.openers[since:] if isinstance(each, ActorProcess)]
    if any(directory.identity in each.registered_with for each in openers):
        return True
    incarnations = {each.incarnation for each in openers}
    return any(
        entry.directory == directory.identity and entry.incarnation in incarnations
        for entry in hit.stage.map.actors.values()
    )
