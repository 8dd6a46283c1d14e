"""Rare orders of events while an actor joins a shard: no copy is lost, none comes back."""

from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, SnapshotRefused
from greenroom_cluster.shard.roles.role import Role
from tests.cluster.shard.probe import ME, B, C, Probe, chunk, prepare


def test_a_superseded_primary_cannot_replace_a_joiners_copy() -> None:
    """The joiner got it from the successor."""
    probe = Probe()
    probe.configure(1, (B, C), wanted="ca")
    probe.hear(C, chunk(epoch=2, join=1))  # C took over; our map does not say so yet
    (answer,) = probe.hear(B, chunk(epoch=1, join=2))
    assert isinstance(answer, SnapshotRefused)
    assert probe.replica.primary_incarnation == C
    probe.configure(3, (C, ME), wanted="ca")
    assert probe.replica.role is Role.BACKUP
    assert probe.replica.primary_incarnation == C


def test_a_late_chunk_of_an_earlier_join_does_not_replace_a_later_one() -> None:
    probe = Probe()
    probe.join(number=2)
    (answer,) = probe.hear(B, chunk(join=1, last=False, sequence=5))
    assert isinstance(answer, SnapshotRefused)
    assert probe.replica.receiver.complete
    assert probe.replica.log.appended == 10


def test_each_join_of_a_primary_has_a_higher_number_than_the_one_before() -> None:
    probe = Probe()
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    numbers = []
    for _ in range(3):
        probe.connect(B)
        numbers.append(probe.chunks()[0].join)
        probe.step(ins.LinkDown(B, bulk=True))
        probe.after(0.3)
        probe.grant(B)
    assert numbers == sorted(set(numbers))


def test_a_chunk_after_the_last_one_is_refused() -> None:
    probe = Probe()
    probe.join()
    (answer,) = probe.hear(B, chunk(number=1))
    assert isinstance(answer, SnapshotRefused)


def test_a_map_older_than_the_snapshot_does_not_take_the_copy_away() -> None:
    """Maps of several epochs arrive late one by one; the last one names us, and the copy must be there."""
    probe = Probe()
    probe.configure(1, (B,), wanted="ca")
    probe.hear(C, chunk(epoch=3))
    probe.configure(2, (B, C), wanted="ca")
    probe.configure(3, (C,), wanted="ca")
    assert probe.replica is not None
    probe.configure(4, (C, ME), wanted="ca")
    assert probe.replica.role is Role.BACKUP


def test_a_map_older_than_its_snapshot_makes_a_joiner_no_backup() -> None:
    """The map names the joiner as a member."""
    probe = Probe()
    probe.configure(1, (B,), wanted="ba")
    probe.hear(B, chunk(epoch=3, last=False))
    probe.configure(2, (B, ME), wanted="ba")
    assert probe.replica is None or probe.replica.role is Role.JOINING
    probe.configure(3, (B,), wanted="ba")
    assert probe.replica is None or probe.replica.role is Role.JOINING


def test_a_joiner_named_too_early_says_that_it_does_not_back() -> None:
    """Its snapshot is incomplete."""
    probe = Probe()
    probe.join(last=False)
    probe.configure(2, (B, ME), wanted="ba")
    assert probe.replica is None
    (answer,) = probe.hear(B, prepare(11))
    assert answer.refused == ((0, 2),)


def test_an_actor_named_without_a_replica_refuses_to_back() -> None:
    """So it is removed."""
    probe = Probe()
    probe.configure(1, (B,), wanted="ba")
    probe.configure(2, (B, ME), wanted="ba")
    (answer,) = probe.hear(B, Beacon(5, 0))
    assert answer.refused == ((0, 2),)
    # The next join has a later epoch, at which the actor is free to back again.
    probe.hear(B, chunk(epoch=3))
    assert probe.replica.role is Role.JOINING


def test_a_complete_copy_that_is_wanted_outlives_a_silent_primary() -> None:
    """The primary may have proposed to add it: were it gone when that is decided, one copy would be all."""
    probe = Probe()
    probe.join()
    probe.after(60)
    assert probe.replica is not None
    probe.configure(2, (B, ME), wanted="ba")
    assert probe.replica.role is Role.BACKUP


def test_an_incomplete_or_unwanted_copy_does_not() -> None:
    for last, wanted, epoch in ((False, "ba", 1), (True, "bc", 2)):
        probe = Probe()
        probe.join(last=last)
        probe.configure(epoch, (B,), wanted=wanted)
        probe.after(60)
        assert probe.replica is None


def test_a_copy_of_a_dead_primary_gives_way_to_an_empty_start() -> None:
    """It may lack acknowledged writes, so it must not pass for the shard; the loss is told instead."""
    probe = Probe()
    probe.join()
    probe.configure(1, (B,), wanted="ac", dead="b")
    assert probe.replica is None
    probe.after(0.3)
    assert probe.proposal("start").epoch == 1


def test_an_actor_that_gave_up_its_copy_joins_at_the_same_epoch() -> None:
    probe = Probe()
    probe.join(last=False)
    probe.after(60)
    assert probe.replica is None
    (answer,) = probe.hear(B, Beacon(5, 0))
    assert answer.refused == ()
