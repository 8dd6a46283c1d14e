"""What a run did not bring about is told, and what it rarely brings about is brought about here."""

from collections.abc import Callable

import pytest

from greenroom_cluster.shard.inputs import PeerMessages
from greenroom_cluster.shard.messages import SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.replica import Replica
from simulations.cli.main import main
from simulations.cluster.actors import ActorProcess
from simulations.faults.injection import KINDS
from simulations.kernel.timeline import SECOND
from simulations.plans.plan import Plan
from simulations.runs.coverage import never_reached, never_struck
from simulations.runs.world import World

PLAN = Plan(seed=1, nodes=3, shards=1, latency_us=2000, start_seconds=(0.01, 0.02))


def in_role(world: World, role: str) -> tuple[ActorProcess, Replica] | None:
    for actor in world.actors.values():
        replica = actor.host.replicas[0] if actor.alive and actor.host.replicas else None
        if replica is not None and replica.role.value == role:
            return actor, replica
    return None


def strike_nothing(_: World) -> None:
    pass


def pause_primary(world: World) -> None:
    world["primary of shard 0"].pause(3.0)


def restart_backup(world: World) -> None:
    world["backup of shard 0"].kill()


@pytest.mark.parametrize(
    ("role", "strike"),
    [("backup", strike_nothing), ("fenced", pause_primary), ("joining", restart_backup)],
)
def test_a_late_word_of_a_join_changes_nothing(role: str, strike: Callable[[World], None]) -> None:
    """Who gave up a join and then its place may still hear of it, on a connection that other joins use."""
    world = World(PLAN)
    assert world.begin()
    strike(world)
    assert world.timeline.run_until(world.timeline.now + 5 * SECOND, lambda: in_role(world, role) is not None)
    found = in_role(world, role)
    assert found is not None
    actor, replica = found
    before = (replica.role, replica.epoch, replica.log.appended, replica.committed, replica.opened)
    peer = next(key for key in world.actors if key != actor.incarnation and world.is_alive(key))
    late = [SnapshotOk(0, replica.epoch, 1, 0), SnapshotRefused(0, replica.epoch, 1, "too late")]
    actor.step(PeerMessages(peer, late))
    assert (replica.role, replica.epoch, replica.log.appended, replica.committed, replica.opened) == before
    assert world.oracles.messages[role, "SnapshotOk"] == 1
    assert world.oracles.messages[role, "SnapshotRefused"] == 1
    assert world.violations == []


def test_a_late_word_of_a_join_of_no_shard_here_changes_nothing() -> None:
    world = World(PLAN)
    assert world.begin()
    members = world.map.shards[0].members
    (outsider,) = (actor for key, actor in world.actors.items() if key not in members)
    late = [SnapshotOk(0, 1, 1, 0), SnapshotRefused(0, 1, 1, "too late")]
    outsider.step(PeerMessages(members[0], late))
    assert outsider.host.replicas == [None]
    assert world.oracles.messages["none", "SnapshotOk"] == 1
    assert world.oracles.messages["none", "SnapshotRefused"] == 1
    assert world.violations == []


def test_a_member_out_of_reach_does_not_keep_another_from_joining() -> None:
    """Two members are missing, and the first of them by the plan cannot be reached: the second joins."""
    world = World(Plan(seed=1, nodes=3, shards=1, replicas=3))
    assert world.begin()
    slots = [f"actor {slot}" for slot in world.map.shards[0].wanted]
    lost, cut_off = world[slots[2]], world[slots[1]]
    cut_off.cut(60.0, other=f"node of {slots[0]}")
    lost.strike("kill actor for good", seconds=3.0)
    end = world.timeline.now + 20 * SECOND
    assert world.timeline.run_until(end, lambda: len(world.map.shards[0].members) == 1)

    def members() -> set[str]:
        return {world.actors[member].slot for member in world.map.shards[0].members}

    rejoined = {world.map.shards[0].wanted[0], world.map.shards[0].wanted[2]}
    assert world.timeline.run_until(end, lambda: members() == rejoined)
    assert world.violations == []


def test_what_never_came_about_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert never_reached({"primary Get": 3, "backup Get": 0})[:2] == ["backup Get", "joining Get"]
    assert never_struck(dict.fromkeys(KINDS, 1)) == []
    assert main(["run", "--seeds", "0:2"]) == 0
    told = capsys.readouterr().out
    assert "never reached (role, message): " in told
    assert "never struck: " in told
