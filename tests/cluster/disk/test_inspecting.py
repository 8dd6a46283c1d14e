"""What an operator is told of a directory, without a change to it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.cli.commands import app
from greenroom_cluster.disk import journal as journal_module
from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Based, Chunk, Committed, Configured, Logged, Proposed
from greenroom_cluster.disk.inspecting import directories_below, inspect_directory
from greenroom_cluster.disk.journal import Journal
from tests.cluster.disk.test_replay import ONE, TWO, record


def filled(directory: Path, *, close: bool = True) -> Journal:
    """Fill a directory as an actor does that held two shards; unless `close`, it still runs."""
    opened = Directory(directory)
    opened.enter("shop", b"i" * 16)
    journal = Journal(opened)
    journal.append((Based(3, 0, 0, ()), Configured(3, 1, 10, 2, b"n" * 12, ONE, (TWO,))))
    journal.append((Logged(3, (record(1), record(2))), Committed(3, 1)))
    journal.append((Proposed(3, 2, b"p" * 12, "remove", ONE, ()),))
    journal.append((Chunk(5, 7, 0, b"c" * 900), Based(5, 7, 0, ((1, 7),))))
    journal.sync()
    if close:
        journal.close()
    return journal


def content(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_it_tells_what_each_shard_has(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    before = content(tmp_path / "d")
    told = inspect_directory(tmp_path / "d")
    assert content(tmp_path / "d") == before, "nothing is changed"
    assert (told.cluster, told.mark, told.damage, told.moved, told.in_use) == ("shop", 4, "", "", False)
    assert told.incarnations == ((b"i" * 16).hex(),)
    three, five = told.shards
    assert (three.epoch, three.members, three.records) == (2, (ONE.hex(), TWO.hex()), 2)
    assert (three.last_epoch, three.last_sequence, three.committed, three.proposal) == (1, 2, 1, "remove")
    assert (five.snapshot_sequence, five.last_sequence, five.records) == (7, 7, 0)
    assert five.size_bytes == 900
    assert "reads 2 shards" in told.start()


def test_a_directory_in_use_is_read_too(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", close=False)
    told = inspect_directory(tmp_path / "d")
    assert (told.in_use, told.mark, len(told.shards), told.damage) == (True, 4, 2, "")
    assert "a process uses the directory" in told.start()
    journal.append((Committed(3, 2),))
    journal.close()


def test_what_a_kill_left_is_read_and_left(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", close=False)
    shutil.copytree(tmp_path / "d", tmp_path / "k")
    journal.close()
    before = content(tmp_path / "k")
    told = inspect_directory(tmp_path / "k")
    assert content(tmp_path / "k") == before
    assert (told.mark, len(told.shards)) == (4, 2)
    assert "another directory" in told.moved


def test_damage_is_told(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    [log] = (tmp_path / "d").glob("log-*.log")
    os.truncate(log, log.stat().st_size - 1)
    told = inspect_directory(tmp_path / "d")
    assert "synced" in told.damage
    assert "`damaged`" in told.start()
    (tmp_path / "d/identity").write_bytes(b"?")
    assert inspect_directory(tmp_path / "d").damage == "the file `identity` is damaged"


def test_what_was_damaged_before_is_told(tmp_path: Path) -> None:
    """A start would refuse, as it sets aside only once."""
    filled(tmp_path / "d")
    (tmp_path / "d" / "damaged").mkdir()
    told = inspect_directory(tmp_path / "d")
    assert "reads 2 shards" in told.start()
    (tmp_path / "d" / "identity").write_bytes(b"?" * 40)
    told = inspect_directory(tmp_path / "d")
    assert told.start().startswith(f"it refuses, because {tmp_path / 'd' / 'damaged'} holds")


def test_a_lost_beginning_is_told_as_damage(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    for path in (tmp_path / "d").glob("log-*"):
        path.unlink()
    told = inspect_directory(tmp_path / "d")
    assert "batch 1 is missing" in told.damage
    assert "`damaged`" in told.start()


def test_the_directories_of_a_node_and_of_a_cluster_are_found(tmp_path: Path) -> None:
    for place in ("nodes/n1/actors/0", "nodes/n2/actors/0", "nodes/n2/actors/1"):
        filled(tmp_path / place)
    assert len(directories_below(tmp_path)) == 3
    assert len(directories_below(tmp_path / "nodes/n2")) == 2
    assert directories_below(tmp_path / "nodes/n1/actors/0") == [tmp_path / "nodes/n1/actors/0"]
    with pytest.raises(UsageError, match="--data-dir of a node"):
        directories_below(tmp_path / "nodes")


def test_a_directory_that_lost_its_identity_is_told_as_damaged(tmp_path: Path) -> None:
    """It is found beside others that are whole, for a start sets it aside."""
    for actor in ("0", "1"):
        filled(tmp_path / "actors" / actor)
    (tmp_path / "actors" / "0" / "identity").unlink()
    found = directories_below(tmp_path)
    assert [each.name for each in found] == ["0", "1"]
    assert [bool(inspect_directory(each).damage) for each in found] == [True, False]
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert result.exit_code == 1
    assert "the file `identity` is missing" in result.stdout


def test_the_commands_show_a_moved_directory_and_adopt_it(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    shutil.copytree(tmp_path / "d", tmp_path / "actors/0")
    run = CliRunner().invoke
    shown = run(app, ["inspect", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert f"greenroom adopt-directory {tmp_path / 'actors/0'}" in shown.output
    told = json.loads(run(app, ["inspect", str(tmp_path), "--json"]).stdout)
    [each] = told["directories"]
    assert each["moved"]
    assert [shard["shard"] for shard in each["shards"]] == [3, 5]
    adopted = run(app, ["adopt-directory", str(tmp_path)])
    assert adopted.exit_code == 0, adopted.output
    assert each["directory"] in adopted.output
    assert "reads 2 shards" in run(app, ["inspect", str(tmp_path)]).output
    (tmp_path / "actors/0/identity").write_bytes(b"?")
    assert run(app, ["inspect", str(tmp_path)]).exit_code == 1
    refused = run(app, ["adopt-directory", str(tmp_path)])
    assert isinstance(refused.exception, UsageError)
    assert "damaged" in str(refused.exception)


def test_what_cannot_be_read_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "d")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal_module, "read_segment", fail)
    refused = CliRunner().invoke(app, ["inspect", str(tmp_path / "d")])
    assert isinstance(refused.exception, GreenroomError)
    assert "Input/output error" in str(refused.exception)


def test_a_log_in_a_database_is_told_in_a_line(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    [log] = (tmp_path / "d").glob("log-*.log")
    log.rename(log.with_suffix(".db"))
    refused = CliRunner().invoke(app, ["inspect", str(tmp_path / "d")])
    assert isinstance(refused.exception, UsageError)
    assert "is an SQLite database" in str(refused.exception)


def test_a_directory_in_use_is_not_adopted(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", close=False)
    refused = CliRunner().invoke(app, ["adopt-directory", str(tmp_path / "d")])
    assert isinstance(refused.exception, UsageError)
    assert "another process uses" in str(refused.exception)
    journal.close()
