"""What a directory shows to a coordinator that has lost its map."""

from greenroom_cluster.coordination.messages import SHOWN_MAX
from greenroom_cluster.disk.entries import Based, Configured, Entry, Proposed, decode_entries, encode_entries
from greenroom_cluster.disk.replay import Replay
from greenroom_cluster.shard.disk_log import Stable
from greenroom_cluster.shard.showing import shown

ONE, TWO, THREE, OPENER = b"1" * 16, b"2" * 16, b"3" * 16, b"o" * 16


def stable(*entries: Entry) -> Stable:
    """A directory in which these were written."""
    replay = Replay()
    for entry in decode_entries(encode_entries(entries)):
        replay.take(entry)
    return Stable(durability="fsync", mark=7, copies=replay.copies, directory=b"d" * 16, openers=(OPENER,))


def configured(shard: int, epoch: int, *, shards: int = 8) -> Configured:
    return Configured(
        shard, 2, 10 * epoch, epoch, b"n" * 12, ONE, (TWO,), b"k" * 16, ONE, ("a/0", "b/0"), shards
    )


def proposed(epoch: int, *backups: bytes) -> Proposed:
    return Proposed(3, epoch, bytes([len(backups)]) * 12, "add", ONE, backups, ("a/0", "b/0", "c/0"))


def test_a_directory_shows_its_configurations_and_open_proposals() -> None:
    """Whoever holds a configuration has opened the directory, though it be too long ago for its list."""
    disk = stable(Based(3, 0, 0, ()), configured(3, 4), proposed(4, TWO, THREE), Based(5, 0, 0, ()))
    (part,) = shown("a/0", disk)
    assert (part.slot, part.directory, part.mark) == ("a/0", b"d" * 16, 7)
    assert (part.openers, part.identity, part.shards) == ((ONE, OPENER), b"k" * 16, 8)
    assert part.held == (5,)
    (known,) = part.known
    assert (known.shard, known.lineage, known.version, known.epoch) == (3, 2, 40, 4)
    assert known.members == ((ONE, "a/0"), (TWO, "b/0"))
    assert known.proposed == ((TWO, "b/0"), (THREE, "c/0"))


def test_a_proposal_that_is_over_names_nobody() -> None:
    disk = stable(Based(3, 0, 0, ()), configured(3, 4), proposed(4, TWO, THREE), configured(3, 5))
    assert shown("a/0", disk)[0].known[0].proposed == ()


def test_all_proposals_at_an_epoch_count_not_the_newest_alone() -> None:
    """One that was given up for another may have been decided: it was under way."""
    remove = Proposed(3, 4, b"r" * 12, "remove", ONE, (), ("a/0",))
    disk = stable(Based(3, 0, 0, ()), configured(3, 4), proposed(4, TWO, THREE), remove)
    assert disk.copies[3].proposal == remove
    assert (THREE, "c/0") in shown("a/0", disk)[0].known[0].proposed


def test_claims_of_former_heirs_do_not_gather() -> None:
    """An heir that starts again and again, while its shard waits, names nobody but itself."""
    claims = [Proposed(3, 4, bytes([each]) * 12, "recover", bytes([each]) * 16, ()) for each in range(99)]
    disk = stable(Based(3, 0, 0, ()), configured(3, 4), *claims)
    assert len(disk.copies[3].proposals) == 1
    assert shown("a/0", disk)[0].known[0].proposed == ()


def test_a_directory_shows_itself_though_it_is_empty() -> None:
    (part,) = shown("a/0", stable())
    assert (part.openers, part.known, part.more, part.shards) == ((OPENER,), (), False, 0)


def test_many_shards_are_shown_in_parts() -> None:
    count = 2 * SHOWN_MAX + 1
    entries = [
        entry
        for shard in range(count)
        for entry in (Based(shard, 0, 0, ()), configured(shard, 1, shards=4096))
    ]
    parts = shown("a/0", stable(*entries))
    assert [part.more for part in parts] == [True, True, False]
    assert [known.shard for part in parts for known in part.known] == list(range(count))
