"""The start of an actor from its directory."""

import errno
import shutil
import threading
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.errors import UsageError
from greenroom_cluster.config import (
    ActorOptions,
    CoordinatorProcessSettings,
    NodeOptions,
    NodeSettings,
)
from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Based, Cut, Logged
from greenroom_cluster.disk.journal import DiskFailedError
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime import actor_disk
from greenroom_cluster.runtime.actor_disk import (
    DiskSettings,
    OpenedDisk,
    actor_directory,
    refuse_kept,
    refuse_unusable,
)
from greenroom_cluster.runtime.actor_disk import open_disk as opening
from greenroom_cluster.runtime.node_process import run_node
from greenroom_cluster.shard.state.records import Record


def record(sequence: int) -> Record:
    return Record(1, sequence, 1000 * sequence, b"c", wire.Delete(sequence, 1, 0, 1, b"d" * 32))


def open_disk(directory: Path, cluster: str = "shop", incarnation: bytes = b"a" * 16) -> OpenedDisk:
    settings = DiskSettings(directory, "n1/0", cluster, incarnation, "fsync", 1.0)
    return opening(settings, lambda: None)


def filled(directory: Path) -> OpenedDisk:
    opened = open_disk(directory)
    opened.journal.append((Based(3, 0, 0, ()), Logged(3, (record(1), record(2)))))
    opened.journal.close()
    return opened


def test_an_empty_directory_holds_nothing(tmp_path: Path) -> None:
    opened = open_disk(tmp_path / "d")
    assert (opened.stable.copies, opened.stable.durability, opened.stable.mark) == ({}, "fsync", 0)
    assert opened.standing.durability == "fsync"
    assert opened.standing.mark == 0
    assert len(opened.standing.directory) == 16
    opened.journal.close()


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    before = filled(tmp_path / "d")
    with capture_logs() as logs:
        again = open_disk(tmp_path / "d", incarnation=b"b" * 16)
    assert again.stable.copies[3].appended == 2
    assert again.standing.directory == before.standing.directory
    assert again.standing.mark == again.stable.mark == 1
    assert again.stable.stored_bytes == again.journal.stored_bytes > 0
    [told] = logs
    assert told["event"] == "disk_replayed"
    assert (told["slot"], told["shards"], told["records"]) == ("n1/0", 1, 2)
    again.journal.close()


def test_a_long_replay_says_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_disk, "_TELL_ENTRIES", 1)
    filled(tmp_path / "d")
    said: list[int] = []
    settings = DiskSettings(tmp_path / "d", "n1/0", "shop", b"b" * 16, "fsync", 1.0)
    opened = opening(settings, lambda: said.append(1))
    assert len(said) == 1, "once a batch"
    opened.journal.append((Logged(3, (record(3),)),))
    opened.journal.close()
    opening(settings, lambda: said.append(2)).journal.close()
    assert said == [1, 2, 2]


@pytest.mark.parametrize("what", ["identity", "segment", "entries"])
def test_a_damaged_directory_begins_empty_as_another(tmp_path: Path, what: str) -> None:
    directory = tmp_path / "d"
    before = filled(directory)
    if what == "identity":
        (directory / "identity").write_bytes(b"?")
    elif what == "segment":
        [log] = directory.glob("log-*.log")
        content = bytearray(log.read_bytes())
        content[-1] ^= 1
        log.write_bytes(content)
    else:
        opened = open_disk(directory)
        opened.journal.append((Logged(3, (record(9),)),))
        opened.journal.close()
    with capture_logs() as logs:
        again = open_disk(directory)
    assert again.stable.copies == {}
    assert again.standing.directory != before.standing.directory
    told = logs[-2]
    assert (told["event"], told["log_level"], told["slot"]) == ("disk_damaged", "error", "n1/0")
    assert list((directory / "damaged").glob("log-*.log")), "nothing is deleted"
    again.journal.append((Based(1, 0, 0, ()), Cut(1, 0)))
    again.journal.close()
    assert list(open_disk(directory).stable.copies) == [1]


def test_it_waits_for_its_predecessor_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = Directory(tmp_path / "d")
    threading.Timer(0.2, former.close).start()
    open_disk(tmp_path / "d").journal.close()
    held = Directory(tmp_path / "d")
    monkeypatch.setattr(actor_disk, "LOCK_SECONDS", 0.1)
    with pytest.raises(UsageError, match="another process uses"):
        open_disk(tmp_path / "d")
    held.close()


def test_a_refused_directory_is_let_go(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    with pytest.raises(UsageError, match="--cluster"):
        open_disk(tmp_path / "d", cluster="other")
    Directory(tmp_path / "d").close()


def test_a_disk_without_room_for_a_start_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Directory, "enter", full)
    with pytest.raises(DiskFailedError, match=r"No space left.*this user may write there.*has room"):
        open_disk(tmp_path / "d")


def test_sessions_on_disk_are_not_passed_over(tmp_path: Path) -> None:
    filled(Path(actor_directory(tmp_path, "fsync", 1)))
    refuse_kept(tmp_path, "fsync", 2)
    refuse_kept(None, "none", 2)
    refuse_kept(tmp_path / "elsewhere", "none", 2)
    with pytest.raises(UsageError, match=r"actors/1 holds sessions of a run with --durability.*--data-dir"):
        refuse_kept(tmp_path, "none", 2)


def test_a_log_without_its_identity_is_not_passed_over(tmp_path: Path) -> None:
    filled(tmp_path / "actors" / "0").journal.close()
    (tmp_path / "actors" / "0" / "identity").unlink()
    with pytest.raises(UsageError, match="--durability"):
        refuse_kept(tmp_path, "none", 1)


def test_fewer_actors_or_nodes_pass_over_no_directory(tmp_path: Path) -> None:
    """Their shards would wait for directories that nobody opens."""
    filled(tmp_path / "nodes" / "n2" / "actors" / "1")
    refuse_kept(tmp_path / "nodes" / "n2", "fsync", 2)
    refuse_kept(tmp_path, "fsync", 2, nodes={"n1", "n2"})
    with pytest.raises(UsageError, match=r"actors/1 holds sessions.*--actors .*as before.*greenroom inspect"):
        refuse_kept(tmp_path / "nodes" / "n2", "fsync", 1)
    with pytest.raises(UsageError, match=r"n2/actors/1 holds sessions.*--actors"):
        refuse_kept(tmp_path, "interval", 1, nodes={"n1", "n2"})
    with pytest.raises(UsageError, match=r"n2/actors/1 holds sessions.*--nodes"):
        refuse_kept(tmp_path, "interval", 2, nodes={"n1"})


def test_neither_a_node_nor_up_passes_over_what_the_other_kept(tmp_path: Path) -> None:
    """They keep sessions in different places of a directory, and began empty beside what was there."""
    filled(tmp_path / "up" / "nodes" / "n1" / "actors" / "0")
    for durability in ("none", "fsync"):
        with pytest.raises(UsageError, match=r"of `greenroom up`, .*--data-dir \S+/up/nodes/n1 "):
            refuse_kept(tmp_path / "up", durability, 1)
    refuse_kept(tmp_path / "up" / "nodes" / "n1", "fsync", 1)
    filled(tmp_path / "node" / "actors" / "0")
    for durability in ("none", "fsync"):
        with pytest.raises(UsageError, match=r"sessions of a node, .*give another --data-dir"):
            refuse_kept(tmp_path / "node", durability, 1, nodes={"n1"})


Checked: TypeAlias = NodeSettings | CoordinatorProcessSettings | LocalClusterSettings


def node(**options: object) -> NodeSettings:
    actor = ActorOptions(**options)  # type: ignore[arg-type]  # wrong ones on purpose
    return NodeSettings(name="n1", node=NodeOptions(actor=actor), data_dir=Path("/d"))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (NodeSettings(name="n1", node=NodeOptions(actor=ActorOptions(durability="fsync"))), "--data-dir"),
        (LocalClusterSettings(node=NodeOptions(actor=ActorOptions(durability="interval"))), "--data-dir"),
        (node(durability="always"), "--durability must be none or interval or fsync"),
        (node(durability="interval", sync_interval=0.0), "--sync-interval must be 0.01 to 60"),
        (node(durability="interval", sync_interval=float("nan")), "--sync-interval must be 0.01 to 60"),
        (
            CoordinatorProcessSettings(recover_alone_after=9.0),
            "--recover-alone-after must be 10 to",
        ),
        (
            LocalClusterSettings(recover_alone_after=float("nan")),
            "--recover-alone-after must be 10 to",
        ),
    ],
)
def test_what_cannot_be_kept_names_the_option(settings: Checked, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        settings.check()


def test_each_actor_of_each_node_has_a_directory() -> None:
    settings = LocalClusterSettings(
        data_dir=Path("/d"), node=NodeOptions(actor=ActorOptions(durability="fsync"))
    )
    settings.check()
    n2 = settings.node_settings("n2", "127.0.0.1:1", "127.0.0.1:2")
    assert actor_directory(n2.data_dir, "fsync", 1) == "/d/nodes/n2/actors/1"
    assert actor_directory(n2.data_dir, "none", 1) == ""


def test_a_node_asks_first_whether_its_directories_can_be_used(tmp_path: Path) -> None:
    filled(tmp_path / "actors" / "0")
    refuse_unusable(tmp_path, "fsync", 2, "shop")
    refuse_unusable(tmp_path, "none", 2, "other")
    refuse_unusable(None, "none", 2, "shop")
    with pytest.raises(UsageError, match="is of the cluster 'shop'"):
        refuse_unusable(tmp_path, "fsync", 1, "other")
    shutil.copytree(tmp_path / "actors" / "0", tmp_path / "actors" / "1", dirs_exist_ok=True)
    refuse_unusable(tmp_path, "fsync", 1, "shop")
    with pytest.raises(UsageError, match=r"actors/1 was moved or copied here.*adopt-directory"):
        refuse_unusable(tmp_path, "fsync", 2, "shop")


def test_what_stands_in_the_way_of_a_directory_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "actors").write_text("no directory")
    with pytest.raises(UsageError, match=r"actors/0 cannot be used.*--data-dir"):
        refuse_unusable(tmp_path, "fsync", 1, "shop")


def test_a_damaged_directory_is_left_to_its_actor(tmp_path: Path) -> None:
    filled(tmp_path / "actors" / "0")
    (tmp_path / "actors" / "0" / "identity").write_bytes(b"damaged")
    refuse_unusable(tmp_path, "fsync", 1, "shop")


def test_a_node_with_a_directory_of_another_cluster_registers_nowhere(tmp_path: Path) -> None:
    """Nobody answers at the coordinator's address: the node would go on trying to join."""
    filled(tmp_path / "actors" / "0")
    settings = NodeSettings(
        name="n1",
        cluster="other",
        coordinator="127.0.0.1:1",
        data_dir=tmp_path,
        node=NodeOptions(actors=1, actor=ActorOptions(durability="fsync")),
    )

    async def run() -> None:
        with trio.fail_after(20):
            await run_node(settings)

    with pytest.raises(UsageError, match="is of the cluster 'shop'"):
        trio.run(run)
