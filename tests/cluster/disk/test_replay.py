"""What entries amount to: the shards that an actor holds after a start."""

import pytest

from greenroom import wire
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import (
    Based,
    Chunk,
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
from greenroom_cluster.shard.state.records import Record, heading

ONE, TWO = b"1" * 16, b"2" * 16


def record(sequence: int, epoch: int = 1) -> Record:
    return Record(epoch, sequence, 1000 * sequence, b"c", wire.Delete(sequence, 1, 0, 1, b"d" * 32))


def logged(*sequences: int, epoch: int = 1) -> Logged:
    return Logged(3, tuple(record(each, epoch) for each in sequences))


def configured(epoch: int) -> Configured:
    return Configured(3, 1, 10 * epoch, epoch, b"n" * 12, ONE, (TWO,), b"k" * 16)


def proposed(epoch: int) -> Proposed:
    return Proposed(3, epoch, b"p" * 12, "remove", ONE, ())


def empty() -> Based:
    return Based(3, 0, 0, ())


def snapshot(sequence: int, *parts: bytes) -> list[Entry]:
    return [Chunk(3, sequence, number, body) for number, body in enumerate(parts)]


def replayed(*entries: Entry) -> dict[int, DiskCopy]:
    replay = Replay()
    for entry in decode_entries(encode_entries(entries)):
        replay.take(entry)
    return replay.copies


def copy_after(*entries: Entry) -> DiskCopy:
    """Return shard 3, which began empty."""
    return replayed(empty(), *entries)[3]


def test_records_follow_each_other() -> None:
    copy = copy_after(logged(1, 2), logged(3))
    assert [heading(each).sequence for each in copy.records] == [1, 2, 3]
    assert (copy.appended, copy.committed, copy.time_us) == (3, 0, 3000)


def test_a_record_voids_what_was_logged_under_its_number_and_above() -> None:
    copy = copy_after(logged(1, 2, 3, 4), logged(3, epoch=2))
    assert [(each.epoch, each.sequence) for each in map(heading, copy.records)] == [(1, 1), (1, 2), (2, 3)]
    assert copy.ladder == ((1, 2), (2, 3))


def test_a_cut_voids_what_may_never_follow() -> None:
    assert copy_after(logged(1, 2, 3), Cut(3, 1)).appended == 1


def test_the_commit_point_is_no_further_than_the_log() -> None:
    assert copy_after(logged(1, 2, 3), Committed(3, 2)).committed == 2
    assert copy_after(logged(1, 2, 3), Committed(3, 9)).committed == 3
    assert copy_after(logged(1, 2, 3), Committed(3, 2), Committed(3, 1)).committed == 2


def test_a_snapshot_takes_the_place_of_what_came_before() -> None:
    ended = Based(3, 3, 5000, ((1, 3),))
    copy = copy_after(logged(1, 2, 3, 4), *snapshot(3, b"a", b"b"), logged(4), ended, logged(5))
    assert copy.chunks == [b"a", b"b"]
    assert [heading(each).sequence for each in copy.records] == [4, 5]
    assert (copy.committed, copy.appended, copy.time_us, copy.last) == (3, 5, 5000, (1, 5))


def test_a_snapshot_that_has_not_ended_changes_nothing() -> None:
    copy = copy_after(logged(1, 2), *snapshot(2, b"a"), logged(3))
    assert copy.chunks == []
    assert [heading(each).sequence for each in copy.records] == [1, 2, 3]


def test_a_snapshot_begun_again_has_nothing_of_the_first_attempt() -> None:
    entries = [*snapshot(0, b"old"), logged(1), *snapshot(1, b"new"), Based(3, 1, 0, ((1, 1),))]
    copy = replayed(*entries)[3]
    assert (copy.chunks, copy.records) == ([b"new"], [])


def test_a_joiner_holds_nothing_before_its_snapshot_has_ended() -> None:
    entries = [*snapshot(7, b"a"), logged(8)]
    assert replayed(*entries) == {}
    assert replayed(*entries, Based(3, 7, 0, ((1, 7),)))[3].appended == 8


def test_a_log_may_begin_in_the_middle() -> None:
    dropped = [logged(5), configured(1), Chunk(3, 5, 2, b"c"), Committed(3, 5)]
    copy = replayed(*dropped, *snapshot(6, b"d"), logged(7), configured(2), Based(3, 6, 0, ((1, 6),)))[3]
    assert (copy.chunks, copy.appended) == ([b"d"], 7)
    assert copy.configuration == configured(2)


def test_a_log_may_begin_amid_a_snapshot_that_was_replaced() -> None:
    """Its end is still there, and records before that are not: it must not pass for an empty beginning."""
    rest = [Chunk(3, 5, 1, b"b"), Based(3, 5, 900, ((1, 5),), chunks=2), logged(18)]
    assert replayed(*rest) == {}
    copy = replayed(*rest, *snapshot(18, b"d"), Based(3, 18, 1000, ((1, 18),), chunks=1))[3]
    assert (copy.chunks, copy.appended) == ([b"d"], 18)


def test_a_copy_that_joined_anew_has_nothing_of_the_former() -> None:
    copy = copy_after(
        *(logged(1, 2, 3, 4, 5), configured(1), Left(3)),
        *snapshot(2, b"a"),
        *(logged(3, epoch=2), Based(3, 2, 0, ((2, 2),))),
    )
    assert copy.ladder == ((2, 3),)
    assert copy.configuration is None


def test_a_proposal_is_open_until_the_epoch_is_another() -> None:
    assert copy_after(configured(1), proposed(1)).proposal == proposed(1)
    assert copy_after(configured(1), proposed(1), configured(1)).proposal == proposed(1)
    assert copy_after(configured(1), proposed(1), configured(2)).proposal is None
    assert copy_after(configured(1), configured(2)).configuration == configured(2)


def test_a_start_that_was_proposed_is_known_until_a_copy_begins() -> None:
    start = Proposed(3, 0, b"s" * 12, "start", ONE, ())
    for entries, starts in (
        ((start,), {3: start}),
        ((start, Left(3)), {3: start}),
        ((start, empty()), {}),
        ((empty(), start), {3: start}),
        ((start, *snapshot(7, b"part"), Based(3, 7, 0, (), 1)), {}),
        ((proposed(1),), {}),
    ):
        replay = Replay()
        for entry in decode_entries(encode_entries(entries)):
            replay.take(entry)
        assert replay.starts == starts


def test_what_was_given_up_is_not_held() -> None:
    assert replayed(empty(), logged(1), Left(3)) == {}


def test_the_newest_map_is_remembered() -> None:
    replay = Replay()
    assert replay.remembered == (0, 0, (), b"")
    for entry in decode_entries(encode_entries((empty(), configured(2), configured(3), Based(1, 0, 0, ())))):
        replay.take(entry)
    assert replay.remembered == (1, 30, (0, 0, 0, 3), b"k" * 16)


def test_a_gap_is_damage() -> None:
    with pytest.raises(DamagedError, match="record 4 comes after 2"):
        copy_after(logged(1, 2), logged(4))
    with pytest.raises(DamagedError, match="chunk 2 comes after 1"):
        replayed(Chunk(3, 0, 0, b""), Chunk(3, 0, 2, b""))


def test_a_cut_behind_the_snapshot_is_damage() -> None:
    with pytest.raises(DamagedError, match="after a snapshot at 3"):
        copy_after(*snapshot(3, b"a"), Based(3, 3, 0, ()), Cut(3, 2))


def test_a_snapshot_that_ends_another_is_damage() -> None:
    with pytest.raises(DamagedError, match="snapshot at 4 ends one that began at 3"):
        replayed(*snapshot(3, b"a"), Based(3, 4, 0, ()))
