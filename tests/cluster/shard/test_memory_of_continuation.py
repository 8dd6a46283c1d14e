"""Memory has an end for an actor too that goes on with what its directory has."""

import pytest

from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard.messages import Beacon, BeaconOk, SnapshotChunk, SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.memory import Memory
from tests.cluster.shard.durable_probe import DIRECTORIES, THEIRS, DurableProbe, restart, update
from tests.cluster.shard.probe import ME, WALL_US, B, D, create, prepare
from tests.cluster.shard.small_memory import SMALL, data

APPLIED_BYTES = 1020
"""What a client and its kept reply take, which the one record of the tests adds."""


def offer(size: int, *, join: int = 7, through: int = 14, missed: int = -1) -> SnapshotChunk:
    """The primary's offer to go on from record 10 with a shard that takes this much up to a record."""
    continues = (10, ((2, 12),))
    return SnapshotChunk(
        0, 3, join, through, WALL_US, 0, True, (), (), (), size, continues=continues, missed_bytes=missed
    )


def returned(settings: HostSettings = SMALL) -> DurableProbe:
    """Return a former backup with little memory, back from its disk with records 11 and 12."""
    before = DurableProbe()
    before.become_backup()
    before.hear(B, prepare(11, 12))
    before.synced()
    probe = restart(before, settings)
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.synced()
    return probe


def replica_of(probe: DurableProbe) -> Replica:
    assert probe.replica is not None
    return probe.replica


def offered(probe: DurableProbe, chunk: SnapshotChunk) -> SnapshotOk | SnapshotRefused:
    probe.hear(B, chunk)
    effects = [*probe.effects, *probe.synced()]
    messages = [effect.message for effect in effects if isinstance(effect, fx.ReplyToPeer)]
    (told,) = [message for message in messages if isinstance(message, SnapshotOk | SnapshotRefused)]
    return told


def granted(probe: DurableProbe) -> int:
    """Return how much the primary may add, by the newest grant."""
    (answer,) = probe.hear(B, Beacon(1, 0, (), 0))
    assert isinstance(answer, BeaconOk)
    return answer.room_bytes


def test_who_goes_on_refuses_a_shard_that_has_outgrown_its_memory() -> None:
    """Nothing of what it has is given up, so that it can go on once there is room."""
    probe = returned()
    refused = offered(probe, offer(300_000))
    assert isinstance(refused, SnapshotRefused)
    assert refused.full
    assert "--memory-max" in refused.reason
    assert isinstance(offered(probe, offer(50_000, join=8)), SnapshotOk)


def test_room_for_what_it_lacks_is_kept_until_that_is_applied() -> None:
    probe = returned()
    memory = probe.host.memory
    free = memory.limit_bytes - memory.spare_bytes
    assert memory.free_bytes < free - memory.used_bytes, "what is found takes more once it is applied"
    assert isinstance(offered(probe, offer(50_000)), SnapshotOk)
    assert probe.host.memory.free_bytes == free - 50_000, "what it holds already is a part of that"
    probe.hear(B, prepare(13, epoch=3, committed=13))
    probe.synced()
    assert replica_of(probe).committed == 13
    assert probe.host.memory.free_bytes == free - 50_000, "record 14 is still to come"
    probe.hear(B, prepare(14, epoch=3, committed=14, batch=2))
    probe.synced()
    assert replica_of(probe).committed == 14
    assert probe.host.memory.free_bytes > free - 5000


def test_no_room_is_kept_for_what_its_primary_did_not_need_it_to_have() -> None:
    """It was added without record 14, which may never come."""
    probe = returned()
    free = probe.host.memory.free_bytes
    offered(probe, offer(50_000))
    probe.hear(B, prepare(13, epoch=3, committed=12))
    probe.configure(4, (B, ME), wanted="ba", dead="c")
    probe.hear(B, prepare(epoch=4, committed=13, batch=2))
    probe.synced()
    assert replica_of(probe).committed == 13
    assert probe.host.memory.free_bytes > free - 5000


def test_who_has_no_copy_to_go_on_with_keeps_no_room_for_it() -> None:
    probe = DurableProbe(settings=SMALL)
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.synced()
    free = probe.host.memory.free_bytes
    refused = offered(probe, offer(50_000))
    assert isinstance(refused, SnapshotRefused)
    assert not refused.full
    assert probe.host.memory.free_bytes == free


def test_what_room_was_kept_for_takes_nothing_of_the_grant() -> None:
    """The primary still goes by the grant, and has not taken these records off it."""
    probe = returned()
    offered(probe, offer(50_000))
    room = granted(probe)
    probe.hear(B, prepare(13, epoch=3, committed=13))
    probe.synced()
    memory = probe.host.memory
    assert memory.used_bytes >= APPLIED_BYTES
    assert memory._grants[B].left_bytes == room


OVER = HostSettings(memory_bytes_max=1000)
"""Less than what such a copy takes; a 32nd of it is set aside for replies."""


def test_who_is_over_its_bound_goes_on_with_the_copy_that_it_has() -> None:
    """Its size says nothing: only what it has missed needs room."""
    probe = returned(OVER)
    assert isinstance(offered(probe, offer(5000, through=12)), SnapshotOk)
    assert probe.host.memory.overfull


@pytest.mark.parametrize(("missed", "taken"), [(30, True), (40, True), (100, False), (-1, False)])
def test_of_what_it_has_missed_only_a_little_may_exceed_the_bound(missed: int, taken: bool) -> None:
    """Of the four records it has two already. A primary of a former release does not say how much it is."""
    answer = offered(returned(OVER), offer(5000, missed=missed))
    if taken:
        assert isinstance(answer, SnapshotOk)
    else:
        assert isinstance(answer, SnapshotRefused)
        assert answer.full


def test_what_may_exceed_the_bound_is_little_in_all() -> None:
    memory = Memory(SMALL, "na/0")
    memory.note(0, 300_000, 0)
    memory.keep_for_found(1, 10_000)
    assert memory.refusal_of_join(1, 500_000, 0) is None
    assert memory.refusal_of_join(2, 500_000, memory.spare_bytes - 10) is None
    assert memory.refusal_of_join(3, 500_000, 10) is None
    assert memory.refusal_of_join(4, 500_000, 10) is not None
    assert memory.refusal_of_join(5, 500_000, 0) is None, "that missed nothing"


def test_what_was_found_goes_before_what_is_new() -> None:
    """A snapshot waits until it shows how much the copies take that are there already."""
    memory = Memory(SMALL, "na/0")
    memory.keep_for_found(1, 150_000)
    refused = memory.refusal_of_join(2, 100_000)
    assert refused == ("actor na/0 takes it once it has applied what it found on its disk", False)
    memory.keep_for_found(1, 0)
    assert memory.refusal_of_join(2, 100_000) is None


def test_who_is_over_its_bound_grants_what_does_not_grow() -> None:
    """Else no session of the shard could be used any more, though the copy is as good as any."""
    probe = returned(OVER)
    offered(probe, offer(5000, through=12))
    (answer,) = probe.hear(B, Beacon(1, 0, (), 0))
    assert isinstance(answer, BeaconOk)
    assert answer.room_bytes == 0
    assert answer.spare_bytes > 0


def test_room_for_a_snapshot_is_kept_though_it_replaces_a_copy() -> None:
    probe = returned()
    memory = probe.host.memory
    probe.hear(B, SnapshotChunk(0, 3, 7, 14, WALL_US, 0, False, (), (), (), 50_000))
    assert memory.free_bytes <= memory.limit_bytes - memory.spare_bytes - 50_000


def back(probe: DurableProbe) -> SnapshotChunk:
    """Have actor d come back with the directory of b, which was removed; return what it is offered."""
    probe.configure(3, (ME,), wanted="ad", dead="b", directories={**DIRECTORIES, "d": THEIRS})
    probe.connect(D)
    (first,) = probe.chunks()
    return first


def left_alone() -> DurableProbe:
    """Return a primary whose backup is removed, with records 1 and 2 since."""
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    probe.synced()
    probe.configure(2, (ME, B), wanted="ab", dead="b")
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="ab", dead="b")
    probe.ask(create(2, digest=b"b" * 32, data=data(20_000)))
    probe.synced()
    return probe


@pytest.mark.parametrize("late", [False, True])
def test_an_offer_says_how_much_the_shard_takes(late: bool) -> None:
    """With all that is logged, applied or not, each counted once."""
    probe = left_alone()
    if late:
        probe.ask(create(3, digest=b"c" * 32, data=data(30_000)))
    first = back(probe)
    assert first.continues is not None
    table = replica_of(probe).table
    held = table.charged_bytes + table.clients.charged_bytes
    assert 20_000 < held < 23_000
    assert first.sequence == (3 if late else 2)
    grown = 50_000 if late else 20_000
    assert grown < first.missed_bytes < grown + 7000, "record 1 was there when it left"
    if late:
        assert 30_000 < first.shard_bytes - held < 33_000
    else:
        assert first.shard_bytes == held


def test_changes_that_do_not_grow_are_not_missed() -> None:
    """Each is charged for what it might add, and adds nothing."""
    probe = left_alone()
    for number in range(3, 40):
        probe.ask(update(number, b"b" * 32, data(20_000, number)))
        probe.synced()
    first = back(probe)
    assert first.continues is not None
    assert 20_000 < first.missed_bytes < 60_000


def test_who_has_no_memory_to_go_on_is_asked_again_later_and_shown() -> None:
    probe = left_alone()
    first = back(probe)
    probe.hear(D, SnapshotRefused(0, 3, first.join, "no memory: a test", full=True))
    state = replica_of(probe).state(probe.now_ns)
    assert (state.join_refusal, state.join_refused_by, state.join_bytes) == (
        "no memory: a test",
        "nd/0",
        first.shard_bytes,
    )
    probe.after(0.4)
    assert not probe.chunks()
    probe.after(2.0)
    probe.connect(D)
    (second,) = probe.chunks()
    assert second.continues == first.continues
