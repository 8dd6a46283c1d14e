"""Stories of the replication protocol, told on a virtual clock with the real coordinator and controller."""

import pytest

from greenroom import wire
from greenroom.wire import FailureCode
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.shard.harness import World, create, delete, get, holding, transitions, update

ALICE = b"a" * 32
BOB = b"b" * 32
CLIENT = b"c" * 16


@pytest.fixture
def world() -> World:
    made = World()
    made.settle()
    return made


def test_a_cluster_comes_up_with_two_replicas_of_every_shard(world: World) -> None:
    for shard, entry in enumerate(world.map.shards):
        nodes = {world.actors[member].node for member in entry.members}
        assert len(entry.members) == 2
        assert len(nodes) == 2
        assert world.serving(shard) == [world.primary(shard)]


def test_a_write_is_in_the_backups_log_before_it_is_acknowledged(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    number = world.request(primary, create(ALICE, holding("v1")))
    assert number not in primary.replies
    world.run_until(lambda: number in primary.replies)
    assert isinstance(primary.replies[number], wire.Written)
    assert backup.replica().log.appended == primary.replica().log.appended
    assert world.call(primary, get(ALICE)).state.data == holding("v1")


def test_with_a_backup_cut_off_no_write_is_acknowledged(world: World) -> None:
    """Not before the backup is removed."""
    primary, backup = world.primary(), world.backup()
    world.cut(primary.node, backup.node)
    epoch = world.map.shards[0].epoch
    number = world.request(primary, create(ALICE, holding("v1")))
    world.run_until(lambda: number in primary.replies)
    assert world.map.shards[0].epoch > epoch
    assert backup.incarnation not in world.map.shards[0].members


def test_a_killed_primary_is_replaced_within_half_a_second(world: World) -> None:
    """Nothing is lost."""
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    killed_ns = world.now_ns
    world.kill(primary)
    world.run_until(lambda: world.serving(0) == [backup])
    assert world.now_ns - killed_ns < 500_000_000
    assert world.call(backup, get(ALICE)).state.data == holding("v1")
    world.settle()
    assert world.primary().incarnation != primary.incarnation
    world.run_until(lambda: world.converged(0))


def test_a_killed_node_is_replaced_within_the_grace(world: World) -> None:
    """The shard then gets a new backup."""
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    killed_ns = world.now_ns
    world.kill_node(primary.node)
    world.run_until(lambda: world.serving(0) == [backup])
    assert world.now_ns - killed_ns < 1_500_000_000
    assert world.call(backup, get(ALICE)).state.data == holding("v1")
    world.settle()
    assert len(world.map.shards[0].members) == 2
    world.run_until(lambda: world.converged(0))


def test_a_paused_primary_wakes_up_and_neither_answers_nor_acknowledges(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    world.pause(primary)
    write = world.request(primary, update(ALICE, holding("lost")))
    read = world.request(primary, get(ALICE))
    world.run_for(2.5)
    assert world.serving(0) == [backup]
    world.call(backup, update(ALICE, holding("v2")))
    world.resume(primary)
    world.run_until(lambda: write in primary.replies and read in primary.replies)
    assert isinstance(primary.replies[read], wire.Redirect)
    assert isinstance(primary.replies[write], wire.Redirect)
    assert primary.replies[write].appended
    world.settle()
    assert world.call(world.primary(), get(ALICE)).state.data == holding("v2")
    assert primary.incarnation in world.map.shards[0].members


def test_a_primary_paused_for_less_than_the_grace_keeps_its_backup(world: World) -> None:
    """Waking up it asks for its leases again, rather than taking its own silence for the backup's."""
    primary = world.primary()
    epoch = world.map.shards[0].epoch
    world.call(primary, create(ALICE, holding("v1")))
    world.pause(primary)
    world.run_for(1.0)
    write = world.request(primary, update(ALICE, holding("v2")))
    world.resume(primary)
    world.run_until(lambda: write in primary.replies, 0.1)
    assert isinstance(primary.replies[write], wire.Written)
    world.run_for(3)
    assert world.map.shards[0].epoch == epoch


def test_a_lease_that_ran_out_holds_reads_until_it_is_known_who_serves(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    for other in ("coordinator", backup.node):
        world.cut(primary.node, other)
    world.run_for(1.1)
    read = world.request(primary, get(ALICE))
    world.run_for(3)
    assert read not in primary.replies
    assert world.serving(0) == [backup]
    world.heal()
    world.run_until(lambda: read in primary.replies)
    assert isinstance(primary.replies[read], wire.Redirect)


def test_without_coordination_a_healthy_cluster_keeps_serving(world: World) -> None:
    world.coordinator_up = False
    for second in range(10):
        world.run_for(1)
        assert isinstance(world.call(world.primary(), update(BOB, holding("x"))), wire.Failed), second
        world.call(world.primary(), create(bytes([second]) * 32, holding("v")))
    assert world.serving(0) == [world.primary()]


def test_without_coordination_a_cut_pair_refuses_rather_than_guesses(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.coordinator_up = False
    world.cut(primary.node, backup.node)
    world.run_for(5)
    write = world.request(primary, create(ALICE, holding("v1")))
    world.run_for(5)
    assert write not in primary.replies
    assert world.serving(0) == []
    world.coordinator_up = True
    world.heal()
    world.settle()


def test_after_its_takeover_proposal_a_backup_acknowledges_nothing(world: World) -> None:
    """Nothing at that epoch."""
    primary, backup = world.primary(), world.backup()
    for node in ("n0", "n1", "n2"):
        world.cut(node, "coordinator")
    world.pause(primary)
    world.run_for(2)
    replica = backup.replica()
    assert replica.role is Role.FENCED
    world.resume(primary)
    write = world.request(primary, create(ALICE, holding("v1")))
    world.run_for(3)
    assert write not in primary.replies
    assert world.serving(0) == []
    logged = [
        effect for effect in backup.trace if isinstance(effect, fx.Ignored) and "fenced" in effect.reason
    ]
    assert logged


def test_a_drained_node_hands_over_and_ends_up_with_nothing(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, holding("v1")))
    world.leave(primary.node)
    world.run_until(
        lambda: all(
            world.actors[member].node != primary.node
            for entry in world.map.shards
            for member in entry.members
        )
    )
    assert world.call(world.primary(), get(ALICE)).state.data == holding("v1")
    assert all(len(entry.members) == 2 for entry in world.map.shards)


def test_a_hand_over_holds_requests_and_sends_them_on(world: World) -> None:
    primary = world.primary()
    world.leave(primary.node)
    seen = []

    def handing_over() -> bool:
        replica = primary.replica()
        if replica is not None and replica.role is Role.HANDING_OVER:
            seen.append(world.request(primary, create(ALICE, holding("v1"))))
            return True
        return False

    world.run_until(handing_over)
    world.run_until(lambda: seen[0] in primary.replies)
    assert isinstance(primary.replies[seen[0]], wire.Redirect)
    assert not primary.replies[seen[0]].appended


def test_a_retry_after_failover_gets_the_first_answer(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    first = wire.Create(7, 7, 0, 0, ALICE, None, 1, 1 << 60, None, "", holding("v1"))
    primary.ask(first)
    world.run_until(lambda: 7 in primary.replies)
    world.kill(primary)
    world.run_until(lambda: world.serving(0) == [backup])
    backup.ask(first)
    world.run_until(lambda: 7 in backup.replies)
    assert backup.replies[7] == primary.replies[7]
    other = wire.Create(8, 7, 0, 0, ALICE, None, 1, 1 << 60, None, "", holding("v1"))
    backup.ask(other)
    world.run_until(lambda: 8 in backup.replies)
    assert backup.replies[8] == wire.Failed(8, FailureCode.EXISTS)


def test_a_write_that_only_the_log_of_the_backup_has_takes_effect_once(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    patch = wire.Delete(5, 5, 0, 0, ALICE)
    world.call(primary, create(ALICE, holding("v1")))
    before = backup.replica().log.appended
    primary.ask(patch, client=b"d" * 16)
    world.run_until(lambda: backup.replica().log.appended > before)
    world.kill(primary)
    assert 5 not in primary.replies
    world.run_until(lambda: world.serving(0) == [backup])
    assert isinstance(world.call(backup, get(ALICE)), wire.Missing)
    world.call(backup, create(ALICE, holding("v2")))
    backup.ask(patch, client=b"d" * 16)
    world.run_until(lambda: 5 in backup.replies)
    assert world.call(backup, get(ALICE)).state.data == holding("v2")


def test_a_very_late_repeat_of_an_unknown_client_is_not_guessed(world: World) -> None:
    primary = world.primary()
    primary.ask(wire.Delete(9, 9, 60_000, 0, ALICE), client=b"z" * 16)
    assert isinstance(primary.replies[9], wire.Unknowable)


def test_what_expired_never_comes_back(world: World) -> None:
    """Although the next primary's clock is behind."""
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1"), expires_s=world.now_ns / 1e9 - 1000 + 4.5))
    world.wall_jump_us[backup.node] = -60_000_000
    world.run_for(4.6)
    assert isinstance(world.call(primary, get(ALICE)), wire.Missing)
    world.kill(primary)
    world.run_until(lambda: world.serving(0) == [backup])
    assert isinstance(world.call(backup, get(ALICE)), wire.Missing)


def test_a_backup_never_expires_by_itself(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1"), expires_s=world.now_ns / 1e9 - 1000 + 100))
    world.wall_jump_us[backup.node] = 3_600_000_000
    world.run_for(2)
    assert ALICE in backup.replica().table.sessions
    world.kill(primary)
    world.run_until(lambda: world.serving(0) == [backup])
    assert world.call(backup, get(ALICE)).state.data == holding("v1")


@pytest.mark.parametrize("jump_us", [20_000_000, -20_000_000])
def test_a_clock_that_jumps_before_a_shards_first_request_is_not_believed(jump_us: int) -> None:
    """Seeds 8106 and 8941 of a long run: sessions ended 20 s too early, or too late."""
    world = World(nodes=2, shards=1)
    world.run_until(lambda: len(world.serving(0)) == 1)
    primary = world.primary()
    assert not primary.replica().table.sessions
    world.wall_jump_us[primary.node] = jump_us
    world.call(primary, create(ALICE, holding("v1"), expires_s=world.now_ns / 1e9 - 1000 + 5))
    assert world.call(primary, get(ALICE)).state.data == holding("v1")
    world.run_for(6)
    assert isinstance(world.call(primary, get(ALICE)), wire.Missing)


def test_expired_sessions_are_swept_on_both_sides(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    for number in range(50):
        world.call(
            primary,
            create(bytes([number]) * 32, holding("v"), expires_s=world.now_ns / 1e9 - 1000 + 3, user="u"),
        )
    world.run_until(lambda: not primary.replica().table.sessions, 20)
    world.run_until(lambda: not backup.replica().table.sessions, 5)
    world.run_until(lambda: world.converged(0))


def test_the_results_of_silent_clients_are_forgotten_on_both_sides(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, holding("v1")))
    world.run_for(60)
    assert len(primary.replica().table.clients) == 0
    world.run_until(lambda: world.converged(0))
    assert len(world.backup().replica().table.clients) == 0


def test_a_shard_whose_members_are_all_known_dead_starts_empty(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    epoch = world.map.shards[0].epoch
    world.call(primary, create(ALICE, holding("v1")))
    world.kill(primary)
    world.kill(backup)
    world.settle()
    assert world.map.shards[0].epoch > epoch
    assert isinstance(world.call(world.primary(), get(ALICE)), wire.Missing)


def test_a_shard_whose_members_are_merely_unreachable_waits_for_them(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    world.pause(primary)
    world.pause(backup)
    world.run_for(20)
    assert world.serving(0) == []
    world.resume(primary)
    world.resume(backup)
    world.settle()
    assert world.call(world.primary(), get(ALICE)).state.data == holding("v1")


def test_large_state_reaches_a_joiner_in_chunks_while_writes_go_on(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    for number in range(40):
        world.call(primary, create(bytes([number]) * 32, holding("x" * 60_000)))
    world.kill(backup)
    while not world.full():
        world.call(world.primary(), update(bytes([3]) * 32, holding("y" * 1000)))
        world.run_for(0.001)
    world.run_until(lambda: world.converged(0))
    assert len(world.backup().replica().table.sessions) == 40


def test_requests_over_many_shards_are_answered_per_shard(world: World) -> None:
    actor = world.primary(0)
    for shard in range(4):
        point = shard << 14
        holder = world.primary(shard)
        world.call(holder, create(bytes([shard]) * 32, holding("v"), point=point, user="u1"))
        world.call(holder, create(bytes([shard + 100]) * 32, holding("v"), point=point, user="u2"))
    mine = {shard for shard in range(4) if world.primary(shard) is actor}
    listing = world.call(actor, lambda number: wire.ListByUser(number, "u1", 100, (0, 1, 2, 3)))
    assert set(listing.shards) == mine
    assert len(listing.sessions) == len(mine)
    counted = world.call(actor, lambda number: wire.DeleteByUser(number, 0, 0, "u1", b"", (0, 1, 2, 3)))
    assert dict(counted.counts) == dict.fromkeys(mine, 1)
    listing = world.call(actor, lambda number: wire.ListByUser(number, "u2", 100, (0, 1, 2, 3)))
    assert len(listing.sessions) == len(mine)


def test_deleting_twice_and_updating_what_is_gone(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, holding("v1")))
    assert isinstance(world.call(primary, delete(ALICE)), wire.Written)
    assert isinstance(world.call(primary, delete(ALICE)), wire.Written)
    assert world.call(primary, update(ALICE, holding("v2"))).code == FailureCode.NOT_FOUND


def test_a_re_created_session_never_matches_an_old_version(world: World) -> None:
    primary = world.primary()
    old = world.call(primary, create(ALICE, holding("v1"))).version
    world.call(primary, delete(ALICE))
    new = world.call(primary, create(ALICE, holding("v2"))).version
    assert new > old
    assert world.call(primary, update(ALICE, holding("x"), version=old)).code == FailureCode.CONFLICT


def test_a_restarted_actor_holds_no_replica(world: World) -> None:
    """Whatever the map says about its predecessor."""
    primary = world.primary()
    world.kill(primary, report=False, restart=False)
    successor = world.start_actor(primary.slot)
    world.run_for(0.3)
    assert world.map.shards[0].primary == primary.incarnation
    assert successor.replica() is None
    reply = world.call(successor, create(ALICE, holding("v1")))
    assert isinstance(reply, wire.Redirect)
    world.settle()


def test_transcript_of_a_killed_primary(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    for actor in world.actors.values():
        actor.trace.clear()
    epoch = world.map.shards[0].epoch
    world.kill(primary)
    world.settle()
    successor = world.at_slot(primary.slot)
    assert transitions([backup, successor], 0) == [
        f"{backup.slot} epoch {epoch} fenced: primary known dead",
        f"{backup.slot} epoch {epoch + 1} primary: takeover",
        f"{backup.slot} epoch {epoch + 2} primary: members changed",
        f"{backup.slot} epoch {epoch + 2} handing over: hand-over proposed",
        f"{backup.slot} epoch {epoch + 3} backup: was handing over",
        f"{successor.slot} epoch {epoch + 1} joining: snapshot begins",
        f"{successor.slot} epoch {epoch + 2} backup: was joining",
        f"{successor.slot} epoch {epoch + 3} primary: handed over",
    ]


def test_nothing_is_served_by_two_at_any_step(world: World) -> None:
    """Faults at random moments, with the one-primary rule checked after every event."""
    names = sorted({actor.node for actor in world.alive()})
    for _ in range(40):
        fault = world.random.choice(["kill", "pause", "cut", "cut coordinator", "none"])
        actor = world.random.choice(world.alive())
        if fault == "kill":
            world.kill(actor)
        elif fault == "pause":
            world.pause(actor)
        elif fault == "cut":
            world.cut(*world.random.sample(names, 2), one_way=world.random.random() < 0.5)
        elif fault == "cut coordinator":
            world.cut(actor.node, "coordinator")
        limit = world.now_ns + world.random.randrange(3_000_000_000)

        def checked(limit: int = limit) -> bool:
            for shard in range(4):
                assert len(world.serving(shard)) <= 1
            return world.now_ns >= limit

        world.run_until(checked)
        for each in world.alive():
            if each.paused:
                world.resume(each)
        world.heal()
        world.run_for(world.random.random() * 2)
    world.settle(60)


def test_joins_begin_as_soon_as_others_end_and_never_too_many_at_once() -> None:
    world = World(nodes=2, shards=32, settings=HostSettings(joins_per_peer_max=2))
    world.settle()
    world.kill(world.alive()[-1])
    world.run_until(lambda: not world.full())
    most = 0

    def joins() -> int:
        return sum(actor.host._resources.joins.taken for actor in world.alive())

    world.run_until(lambda: joins() > 0)
    began_ns = world.now_ns
    while not world.full():
        world.run_for(0.0001)
        most = max(most, joins())
    assert most == 2
    # Two at a time and only at every look at all shards, it would take four seconds.
    assert world.now_ns - began_ns < 500_000_000


def test_a_peer_that_hangs_does_not_hold_up_the_joins_of_others() -> None:
    """It may hang for long: while its node is up, nobody declares it dead."""
    world = World(nodes=3, shards=256)
    world.settle()
    world.start_node("n3")
    world.pause(world.at_slot("n3/0"))
    world.run_for(1.5)
    world.kill(world.at_slot("n1/0"))
    # Those whose second copy the plan puts on the one that hangs have to wait for it.
    hanging = {shard for shard, entry in enumerate(world.map.shards) if "n3/0" in entry.wanted}

    def alone() -> set[int]:
        return {shard for shard, entry in enumerate(world.map.shards) if len(entry.members) < 2}

    world.run_until(lambda: bool(alone()), 5)
    world.run_until(lambda: not alone() - hanging, 5)
