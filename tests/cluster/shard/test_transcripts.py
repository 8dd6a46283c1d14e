"""The protocol's stories, message by message, compared with the transcripts in `transcripts/`.

Run with GREENROOM_UPDATE_TRANSCRIPTS=1 to write them anew, then read what changed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom import wire
from tests.cluster.shard.harness import WALL_START_US, World, holding
from tests.cluster.shard.narrator import Narrator

DIRECTORY = Path(__file__).parent / "transcripts"
ALICE = b"a" * 32
FAR_US = WALL_START_US + 10**12


def create(request_id: int, value: str = "v1", digest: bytes = ALICE) -> wire.Create:
    return wire.Create(
        request_id, request_id, 0, 0, digest, None, WALL_START_US, FAR_US, None, "", holding(value)
    )


def update(request_id: int, value: str) -> wire.Update:
    return wire.Update(request_id, request_id, 0, 0, ALICE, None, FAR_US, "", holding(value), None)


def get(request_id: int) -> wire.Get:
    return wire.Get(request_id, 0, ALICE)


def write_path(world: World, tale: Narrator) -> None:
    """A write is in the backup's log before it is acknowledged; a read needs no message."""
    tale.ask(world.primary(), create(1))
    world.run_for(0.001)
    tale.ask(world.primary(), update(2, "v2"), update(3, "v3"))
    tale.ask(world.primary(), get(4))
    world.run_for(0.001)
    tale.ask(world.primary(), get(5))
    world.run_for(0.3)


def backup_cut_off(world: World, tale: Narrator) -> None:
    """Nothing is acknowledged until the backup's removal is decided; then the primary is enough."""
    primary, backup = world.primary(), world.backup()
    tale.say(f"-- {tale.name(primary.incarnation)} and {tale.name(backup.incarnation)} are cut off")
    world.cut(primary.node, backup.node)
    world.run_for(0.5)
    tale.ask(primary, create(1))
    world.run_for(1)
    tale.say("-- healed")
    world.heal()
    world.settle()
    world.run_until(lambda: world.converged(0))


def takeover_on_known_death(world: World, tale: Narrator) -> None:
    """The primary dies with a write in flight; its exit was seen, so the backup takes over at once."""
    primary, backup = world.primary(), world.backup()
    tale.ask(primary, create(1))
    world.run_for(0.0003)
    tale.say(f"-- {tale.name(primary.incarnation)} is killed, and seen to be dead")
    world.kill(primary)
    world.run_until(lambda: world.serving(0) == [backup])
    tale.ask(backup, get(2))
    world.settle()


def takeover_by_grace(world: World, tale: Narrator) -> None:
    """The primary's node dies and nobody can tell that it did: the backup waits for the grace."""
    primary, backup = world.primary(), world.backup()
    tale.ask(primary, create(1))
    world.run_for(0.001)
    tale.say(f"-- the node of {tale.name(primary.incarnation)} loses its power")
    world.kill_node(primary.node)
    world.run_until(lambda: world.serving(0) == [backup])
    tale.ask(backup, get(2))


def joining_under_load(world: World, tale: Narrator) -> None:
    """The log goes on while the snapshot travels; the joiner counts before it is proposed."""
    primary, backup = world.primary(), world.backup()
    for number in range(1, 4):
        tale.ask(primary, create(number, b"x" * 200_000, bytes([number]) * 32))
    world.run_for(0.001)
    tale.say(f"-- {tale.name(backup.incarnation)} is killed, and starts anew")
    world.kill(backup)
    request_id = 10

    def loaded() -> bool:
        nonlocal request_id
        replica = primary.replica()
        if replica is not None and replica.primary is not None:
            membership = replica.primary.membership
            transfer = membership.transfer
            if transfer is not None and request_id < 16 and replica.committed == replica.log.appended:
                request_id += 1
                tale.ask(primary, create(request_id, "w", bytes([request_id]) * 32))
        return world.full()

    world.run_until(loaded)
    world.run_until(lambda: world.converged(0))


def hand_over(world: World, tale: Narrator) -> None:
    """A node is drained: first a new member, then the hand-over, then the old primary goes."""
    primary = world.primary()
    tale.ask(primary, create(1))
    world.run_for(0.001)
    tale.say(f"-- the node of {tale.name(primary.incarnation)} is to leave")
    world.leave(primary.node)

    def handing_over() -> bool:
        replica = primary.replica()
        return (
            replica is not None
            and replica.proposal is not None
            and replica.primary is not None
            and (replica.primary.paused)
        )

    world.run_until(handing_over)
    tale.ask(primary, update(2, "v2"))
    world.run_until(lambda: primary.incarnation not in world.map.shards[0].members)
    world.run_for(0.01)


def paused_primary(world: World, tale: Narrator) -> None:
    """A paused primary wakes up superseded: it neither answers nor acknowledges."""
    primary, backup = world.primary(), world.backup()
    tale.ask(primary, create(1))
    world.run_for(0.001)
    tale.say(f"-- {tale.name(primary.incarnation)} is paused")
    world.pause(primary)
    tale.ask(primary, update(2, "lost"))
    tale.ask(primary, get(3))
    world.run_until(lambda: world.serving(0) == [backup])
    tale.ask(backup, update(4, "v2"))
    world.run_for(1)
    tale.say(f"-- {tale.name(primary.incarnation)} wakes up")
    world.resume(primary)
    world.run_for(0.002)
    tale.ask(backup, get(5))


def retry_across_failover(world: World, tale: Narrator) -> None:
    """The answer is lost with the primary; the repeat gets it from the successor, with no second effect."""
    primary, backup = world.primary(), world.backup()
    tale.ask(primary, create(1))
    world.run_until(lambda: 1 in primary.replies)
    tale.say(f"-- the answer is lost: {tale.name(primary.incarnation)} is killed")
    world.kill(primary, restart=False)
    world.run_until(lambda: world.serving(0) == [backup])
    tale.ask(backup, create(1))
    world.run_for(0.001)
    tale.ask(backup, create(2))
    world.run_for(0.001)


STORIES: list[Callable[[World, Narrator], None]] = [
    write_path,
    backup_cut_off,
    takeover_on_known_death,
    takeover_by_grace,
    joining_under_load,
    hand_over,
    paused_primary,
    retry_across_failover,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_story_goes_as_written(story: Callable[[World, Narrator], None]) -> None:
    world = World(shards=1)
    world.settle()
    world.run_for(0.3)
    tale = Narrator(world)
    story(world, tale)
    members = [f"{tale.name(each)}" for each in world.map.shards[0].members]
    told = "\n".join([f"# {story.__doc__}", *tale.lines, f"# in the end: {', '.join(members)}", ""])
    path = DIRECTORY / f"{story.__name__}.txt"
    if os.environ.get("GREENROOM_UPDATE_TRANSCRIPTS"):
        path.write_text(told)
    assert told == path.read_text()
