"""What entries amount to: the shards that an actor holds after a start."""

import pytest

from greenroom import wire
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import (
    Based,
    Committed,
    Configured,
    Cut,
    Entry,
    Left,
    Logged,
    Proposed,
    decode_entries,
    encode_entries,
)
from greenroom_cluster.disk.replay import DiskCopy, Replay
from greenroom_cluster.shard.state.records import Record

ONE, TWO = b"1" * 16, b"2" * 16


def record(sequence: int, epoch: int = 1) -> Record:
    return Record(epoch, sequence, 1000 * sequence, b"c", wire.Delete(sequence, 1, 0, 1, b"d" * 32))


def logged(*sequences: int, epoch: int = 1) -> Logged:
    return Logged(3, tuple(record(each, epoch) for each in sequences))


def configured(epoch: int) -> Configured:
    return Configured(3, 1, 10 * epoch, epoch, b"n" * 12, ONE, (TWO,))


def proposed(epoch: int) -> Proposed:
    return Proposed(3, epoch, b"p" * 12, "remove", ONE, ())


def copy_after(*entries: Entry) -> DiskCopy:
    replay = Replay()
    for entry in decode_entries(encode_entries(entries)):
        replay.take(entry)
    return replay.copies[3]


def test_records_follow_each_other() -> None:
    copy = copy_after(logged(1, 2), logged(3))
    assert [each.sequence for each in copy.records] == [1, 2, 3]
    assert (copy.appended, copy.committed, copy.time_us) == (3, 0, 3000)


def test_a_record_voids_what_was_logged_under_its_number_and_above() -> None:
    copy = copy_after(logged(1, 2, 3, 4), logged(3, epoch=2))
    assert [(each.epoch, each.sequence) for each in copy.records] == [(1, 1), (1, 2), (2, 3)]
    assert copy.ladder == ((1, 2), (2, 3))


def test_a_cut_voids_what_may_never_follow() -> None:
    assert copy_after(logged(1, 2, 3), Cut(3, 1)).appended == 1


def test_the_commit_point_is_no_further_than_the_log() -> None:
    assert copy_after(logged(1, 2, 3), Committed(3, 2)).committed == 2
    assert copy_after(logged(1, 2, 3), Committed(3, 9)).committed == 3
    assert copy_after(logged(1, 2, 3), Committed(3, 2), Committed(3, 1)).committed == 2


def test_a_snapshot_takes_the_place_of_what_came_before() -> None:
    copy = copy_after(logged(1, 2, 3, 4), Based(3, 7, 3, 5000, ((1, 3),)))
    assert copy.base.snapshot == 7
    assert [each.sequence for each in copy.records] == [4]
    assert (copy.committed, copy.appended, copy.time_us) == (3, 4, 5000)
    assert copy.ladder == ((1, 4),)


def test_a_copy_that_joined_anew_has_nothing_of_the_former() -> None:
    copy = copy_after(
        logged(1, 2, 3, 4, 5), configured(1), Left(3), Based(3, 8, 2, 0, ((2, 2),)), logged(3, epoch=2)
    )
    assert copy.ladder == ((2, 3),)
    assert copy.configuration is None


def test_a_proposal_is_open_until_the_epoch_is_another() -> None:
    assert copy_after(configured(1), proposed(1)).proposal == proposed(1)
    assert copy_after(configured(1), proposed(1), configured(1)).proposal == proposed(1)
    assert copy_after(configured(1), proposed(1), configured(2)).proposal is None
    assert copy_after(configured(1), configured(2)).configuration == configured(2)


def test_what_was_given_up_is_not_held() -> None:
    replay = Replay()
    for entry in (logged(1), Left(3)):
        replay.take(entry)
    assert replay.copies == {}


def test_a_gap_is_damage() -> None:
    with pytest.raises(DamagedError, match="record 4 comes after 2"):
        copy_after(logged(1, 2), logged(4))


def test_a_cut_behind_the_snapshot_is_damage() -> None:
    with pytest.raises(DamagedError, match="after a snapshot at 3"):
        copy_after(Based(3, 7, 3, 0, ()), Cut(3, 2))
