"""The map on a real disk: whole or refused, never silently empty."""

import os
import stat
import struct
import zlib
from pathlib import Path

import msgspec
import pytest

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, SuspectRecord
from greenroom.errors import InvariantError, UsageError
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map, starting_map
from greenroom_cluster.coordination.storage import (
    FORMAT_VERSION,
    MapDamagedError,
    MapStorage,
    StorageFailedError,
)
from tests.cluster.coordination.builders import actor, cluster, inc, node, shard

A, B = inc("a"), inc("b")
MAP = cluster(
    (shard(A, (B,), epoch=3, wanted=("a/0", "b/0"), made_by=b"n" * 16), shard()),
    (actor(A, "a/0"), actor(B, "b/0", "dead")),
    (node("a"), node("b", "leaving")),
    version=17,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory in which MAP was saved."""
    with MapStorage(tmp_path / "data") as storage:
        storage.save(MAP)
    return tmp_path / "data"


def test_a_map_comes_back_as_it_was_saved(saved: Path) -> None:
    with MapStorage(saved) as storage:
        assert storage.load() == MAP


def test_nothing_was_ever_saved_here(tmp_path: Path) -> None:
    with MapStorage(tmp_path) as storage:
        assert storage.load() is None


def test_only_the_owner_may_look(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert stat.S_IMODE((saved / "map.bin").stat().st_mode) == 0o600


def test_two_coordinators_do_not_share_a_directory(saved: Path) -> None:
    with MapStorage(saved), pytest.raises(UsageError, match="another coordinator"):
        MapStorage(saved)
    MapStorage(saved).close()


def test_an_unusable_directory_is_told_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="--data-dir"):
        MapStorage(tmp_path / "file")


def test_a_torn_file_is_refused_at_every_length(saved: Path) -> None:
    path = saved / "map.bin"
    whole = path.read_bytes()
    with MapStorage(saved) as storage:
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(MapDamagedError, match="damaged"):
                storage.load()
        path.write_bytes(whole + b"\0")
        with pytest.raises(MapDamagedError, match="damaged"):
            storage.load()


def test_a_flipped_bit_is_refused_wherever_it_is(saved: Path) -> None:
    path = saved / "map.bin"
    whole = path.read_bytes()
    with MapStorage(saved) as storage:
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << (position % 8)
            path.write_bytes(damaged)
            with pytest.raises(MapDamagedError):
                storage.load()


def test_a_vanished_map_is_not_a_first_start(saved: Path) -> None:
    (saved / "map.bin").unlink()
    with MapStorage(saved) as storage, pytest.raises(MapDamagedError, match="missing"):
        storage.load()


def test_a_crash_before_the_rename_leaves_the_former_map(saved: Path) -> None:
    (saved / "map.tmp").write_bytes(b"half a ma")
    with MapStorage(saved) as storage:
        assert storage.load() == MAP
        storage.save(first_map("test", 8, 2))
        assert storage.load() == first_map("test", 8, 2)


def test_a_later_format_is_told_apart_from_damage(saved: Path) -> None:
    path = saved / "map.bin"
    content = bytearray(path.read_bytes())
    content[9] = 3
    path.write_bytes(content)
    with MapStorage(saved) as storage, pytest.raises(MapDamagedError, match=r"has format 3, .* up to 2"):
        storage.load()
    content[9] = 0  # as a disk leaves it that lost what was written
    path.write_bytes(content)
    with MapStorage(saved) as storage, pytest.raises(MapDamagedError, match="is damaged"):
        storage.load()


DURABLE = msgspec.structs.replace(actor(A, "a/0"), durability="fsync", directory=b"d" * 16, mark=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"actors": {A: DURABLE}},
        {"floors": {b"d" * 16: 3}},
        {"shards": (msgspec.structs.replace(MAP.shards[0], suspect=SuspectRecord(B, 3, 9)), shard())},
    ],
    ids=["directory", "floor", "suspect"],
)
def test_a_map_that_a_former_release_would_cut_is_none_for_it(
    saved: Path, changes: dict[str, object]
) -> None:
    """Releases of before read format 1 alone, without the fields that they do not know."""
    changed = msgspec.structs.replace(MAP, **changes)
    path = saved / "map.bin"
    assert format_at(path) == 1
    with MapStorage(saved) as storage:
        storage.save(changed)
    assert format_at(path) == 2
    with MapStorage(saved) as storage:
        assert storage.load() == changed
        storage.save(MAP)
    assert format_at(path) == 1


def test_a_map_that_was_moved_is_none_for_a_former_release(tmp_path: Path) -> None:
    """It does not look where the map was moved, and would go on from it beside who has it now."""
    with MapStorage(tmp_path) as storage:
        storage.vouch()
        storage.save(MAP)
    for _ in range(2):
        with MapStorage(tmp_path) as storage:
            assert storage.load() == MAP
            storage.move("etcd://one:2379")
        assert format_at(tmp_path / "map.bin") == 2
        with MapStorage(tmp_path) as storage:
            assert storage.load(even_moved=True) == MAP
            assert storage.vouched
            storage.stay()
        assert format_at(tmp_path / "map.bin") == 1
    with MapStorage(tmp_path) as storage:
        assert storage.load() == MAP
        assert storage.vouched


def format_at(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[8:10], "big")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": {"n": NodeEntry("n", "\x1b[2J:1", "up")}}, "entry of node 'n'"),
        ({"nodes": {"n": NodeEntry("m", "h:1", "up")}}, "entry of node 'n'"),
        ({"nodes": {"n": NodeEntry("n", "h:1", "up", "a zone")}}, "choose another --zone"),
        ({"actors": {b"a" * 16: ActorEntry(b"a" * 16, "n", "n/0", "h:1", "up", "H" * 600, 1, 1)}}, "'n/0'"),
        ({"shards": MAP.shards + MAP.shards[:1]}, "power of two"),
        ({"lineage": 1 << 62}, "out of range"),
        ({"shards": (ShardEntry(1 << 23, b"", (), b"", ()),) * 4}, "epoch"),
        ({"shards": (ShardEntry(1, b"", (), b"", ("w" * 300_000,)),) * 4}, "bytes long"),
    ],
)
def test_a_map_that_nobody_could_follow_is_refused_at_the_start(
    saved: Path, changes: dict[str, object], said: str
) -> None:
    """As a release wrote it that did not yet look at what it wrote."""
    payload = msgspec.msgpack.encode(msgspec.structs.replace(MAP, **changes))
    header = struct.pack(">8sHQI", b"GREENMAP", FORMAT_VERSION, len(payload), zlib.crc32(payload))
    (saved / "map.bin").write_bytes(header + payload)
    with MapStorage(saved) as storage, pytest.raises(MapDamagedError, match="damaged") as refused:
        storage.load()
    assert said in str(refused.value)
    assert "--adopt-from" in str(refused.value)


def test_a_map_keeps_zones_and_one_without_any_is_read(saved: Path) -> None:
    """The second is one that a release wrote which knew none."""
    zoned = msgspec.structs.replace(MAP, nodes={"n": NodeEntry("n", "h:1", "up", "x")})
    with MapStorage(saved) as storage:
        storage.save(zoned)
        assert storage.load() == zoned
    fields = list(msgspec.structs.astuple(zoned))
    fields[4] = {"n": ("n", "h:1", "up")}
    payload = msgspec.msgpack.encode(fields)
    header = struct.pack(">8sHQI", b"GREENMAP", FORMAT_VERSION, len(payload), zlib.crc32(payload))
    (saved / "map.bin").write_bytes(header + payload)
    with MapStorage(saved) as storage:
        read = storage.load()
    assert read is not None
    assert read.nodes == {"n": NodeEntry("n", "h:1", "up")}


def test_a_map_too_long_for_a_frame_is_not_written(saved: Path) -> None:
    before = (saved / "map.bin").read_bytes()
    shards = (ShardEntry(1, b"", (), b"", ("w" * 300_000,)),) * 4
    with MapStorage(saved) as storage, pytest.raises(InvariantError):
        storage.save(msgspec.structs.replace(MAP, shards=shards))
    assert (saved / "map.bin").read_bytes() == before


def test_after_a_failed_fsync_nothing_is_tried_again(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls = []

    def failing(file: int) -> None:
        calls.append(file)
        raise OSError(5, "Input/output error")

    with MapStorage(saved) as storage:
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(StorageFailedError, match="Input/output error"):
            storage.save(first_map("test", 8, 2))
        monkeypatch.setattr(os, "fsync", real)
        with pytest.raises(StorageFailedError):
            storage.save(first_map("test", 8, 2))
        assert len(calls) == 1
        assert storage.load() == MAP


# --- what to start with ----------------------------------------------------------------------------------


def test_the_first_start_takes_defaults() -> None:
    fresh = starting_map(None, ClusterOptions("shop"))
    assert (fresh.cluster, fresh.shard_count, fresh.replicas) == ("shop", 64, 2)
    assert (fresh.lineage, fresh.version) == (1, 1)


def test_later_starts_take_what_is_there() -> None:
    stored = first_map("shop", 16, 3)
    assert starting_map(stored, ClusterOptions("shop")) is stored
    assert starting_map(stored, ClusterOptions("shop", 16, 3)) is stored


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (ClusterOptions("other"), "--cluster"),
        (ClusterOptions("shop", shards=32), "--shards"),
        (ClusterOptions("shop", replicas=1), "--replicas"),
    ],
)
def test_other_values_than_at_creation_are_refused(options: ClusterOptions, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        starting_map(first_map("shop", 16, 2), options)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (ClusterOptions(""), "--cluster"),
        (ClusterOptions("a b"), "--cluster"),
        (ClusterOptions("shop", shards=0), "--shards"),
        (ClusterOptions("shop", shards=48), "--shards"),
        (ClusterOptions("shop", shards=8192), "--shards"),
        (ClusterOptions("shop", replicas=0), "--replicas"),
        (ClusterOptions("shop", replicas=4), "--replicas"),
    ],
)
def test_values_that_cannot_be_are_refused(options: ClusterOptions, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        starting_map(None, options)


def test_a_new_lineage_is_later_than_the_copy() -> None:
    stored = first_map("shop", 16, 2)
    options = ClusterOptions("shop", new_lineage=True, give_up_newer=True)
    assert starting_map(stored, options).lineage == 2
    assert starting_map(None, options).lineage == 2


def test_a_new_lineage_from_the_copy_alone_must_be_meant() -> None:
    """The copy may name incarnations that died since, and their shards would begin empty."""
    stored = first_map("shop", 16, 2)
    for known in (stored, None):
        with pytest.raises(UsageError, match=r"--adopt-from .*GREENROOM_ADOPT_FROM.*--give-up-newer"):
            starting_map(known, ClusterOptions("shop", new_lineage=True))


def lived_through(cluster_map: ClusterMap, *, lineage: int = 1, version: int, epoch: int) -> ClusterMap:
    """Return the map as it became later."""
    shards = tuple(msgspec.structs.replace(shard, epoch=epoch) for shard in cluster_map.shards)
    return msgspec.structs.replace(cluster_map, lineage=lineage, version=version, shards=shards)


def test_a_new_lineage_begins_from_the_newest_map_that_is_in_use() -> None:
    copy = lived_through(first_map("shop", 16, 2), version=7, epoch=3)
    older = lived_through(copy, version=90, epoch=8)
    newest = lived_through(copy, lineage=2, version=20, epoch=70_000)
    options = ClusterOptions("shop", new_lineage=True)
    for stored in (copy, None):
        begun = starting_map(stored, options, (older, newest))
        assert begun.lineage == 3
        assert begun.newer_than(newest)
        assert {shard.epoch for shard in begun.shards} == {70_000 + 65_536}
    begun = starting_map(newest, options, (copy, older))
    assert (begun.lineage, begun.shards[0].epoch) == (3, 70_000 + 65_536)


def test_a_new_lineage_takes_the_newest_of_each_shard() -> None:
    """An older copy ran for a while under versions beyond those of the newest map."""
    c = inc("c")
    copy = msgspec.structs.replace(MAP, shards=(MAP.shards[0], MAP.shards[0]))
    newest = msgspec.structs.replace(
        copy,
        version=40,
        actors={**copy.actors, A: actor(A, "a/0", "dead"), c: actor(c, "a/0")},
        shards=(shard(c, epoch=6, wanted=("a/0",)), copy.shards[1]),
    )
    forked = msgspec.structs.replace(copy, version=900, shards=(copy.shards[0], shard(A, epoch=4)))
    for known in ((copy, (newest, forked)), (forked, (newest,)), (None, (forked, copy, newest))):
        begun = starting_map(known[0], ClusterOptions("test", new_lineage=True), known[1])
        assert begun.version > 900
        assert [entry.epoch - 65_536 for entry in begun.shards] == [6, 4]
        assert [entry.primary for entry in begun.shards] == [c, A]
        assert begun.actors[c].state == "up"
        assert begun.actors[A].state == "dead"


def test_who_holds_a_shard_by_another_map_takes_nobodys_slot() -> None:
    c = inc("c")
    newest = msgspec.structs.replace(MAP, shards=(shard(A, epoch=9), shard(A, epoch=9)))
    forked = msgspec.structs.replace(
        MAP,
        version=900,
        nodes={**MAP.nodes, "z": node("z")},
        actors={c: actor(c, "a/0"), B: actor(B, "z/0")},
        shards=(shard(c, (B,), epoch=10), shard()),
    )
    begun = starting_map(newest, ClusterOptions("test", new_lineage=True), (forked,))
    assert begun.shards[0].members == (c, B)
    assert (begun.actors[A].state, begun.actors[c].state) == ("up", "replaced")
    assert set(begun.nodes) == {"a", "b"}


@pytest.mark.parametrize(
    "other", [first_map("else", 16, 2), first_map("shop", 32, 2), first_map("shop", 16, 3)]
)
def test_a_map_of_another_cluster_is_not_adopted(other: ClusterMap) -> None:
    stored = lived_through(first_map("shop", 16, 2), version=7, epoch=3)
    with pytest.raises(UsageError, match="--adopt-from"):
        starting_map(stored, ClusterOptions("shop", new_lineage=True), (other,))


def test_a_map_of_an_emptied_directory_does_not_stand_in_the_way() -> None:
    """The coordinator was started there first, with default options, and no shard has begun by its map."""
    running = lived_through(first_map("shop", 16, 3), version=9, epoch=5)
    for options in (ClusterOptions("shop", new_lineage=True), ClusterOptions("shop", 16, new_lineage=True)):
        assert starting_map(first_map("shop", 64, 2), options, (running,)).shard_count == 16


@pytest.mark.parametrize(
    "options", [ClusterOptions("shop", 16, new_lineage=True), ClusterOptions("else", new_lineage=True)]
)
def test_a_map_that_is_not_what_was_asked_for_is_not_adopted(options: ClusterOptions) -> None:
    with pytest.raises(UsageError, match=r"--(shards|cluster)"):
        starting_map(None, options, (first_map("shop", 32, 2),))


# --- marks ----------------------------------------------------------------------------------------------


def test_marks_come_back_as_they_were_saved(saved: Path) -> None:
    with MapStorage(saved) as storage:
        assert storage.load_marks() == {}
        storage.save_marks({b"d" * 16: 7})
        storage.save_marks({b"d" * 16: 9, b"e" * 16: 1 << 62})
    with MapStorage(saved) as storage:
        assert storage.load_marks() == {b"d" * 16: 9, b"e" * 16: 1 << 62}
        assert storage.load() == MAP


def test_damaged_marks_are_refused_at_every_byte(saved: Path) -> None:
    with MapStorage(saved) as storage:
        storage.save_marks({b"d" * 16: 7})
        path = saved / "marks.bin"
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])
            with pytest.raises(MapDamagedError, match=r"marks\.bin"):
                storage.load_marks()
            path.write_bytes(whole[:place])
            with pytest.raises(MapDamagedError):
                storage.load_marks()


def test_after_marks_could_not_be_written_nothing_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    with MapStorage(saved) as storage:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailedError, match="marks of directories"):
            storage.save_marks({b"d" * 16: 7})
        monkeypatch.undo()
        with pytest.raises(StorageFailedError):
            storage.save(MAP)
