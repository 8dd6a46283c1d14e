"""The file of a SqliteStore: who may read it, what it holds, and which files are refused."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from greenroom import SqliteStore, UnavailableError, UsageError
from greenroom.sqlite import files
from tests.store.client.store_stage import run
from tests.store.sqlite.sqlite_stage import OLD_VERSION, WAL_VERSION, session


def reason(store: SqliteStore, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        run("asyncio", store.check)
    run("asyncio", store.aclose)
    return str(caught.value)


def foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_file_that_another_makes_meanwhile_is_no_foreign_one(
    journal: str, new_store: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that begin together make one file: to some it was empty at one look, and not at the next."""
    look, other = files._number, new_store()

    def look_too_early(connection: sqlite3.Connection, pragma: str) -> int:
        found = look(connection, pragma)
        if found == 0:
            monkeypatch.setattr(files, "_number", look)
            run("asyncio", lambda: other.create(session()))
        return found

    monkeypatch.setattr(files, "_number", look_too_early)
    store = new_store()
    run("asyncio", lambda: store.create(session()))
    for each in (store, other):
        run("asyncio", each.aclose)


def test_only_the_owner_reads_it(journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path) -> None:
    store = new_store()
    run("asyncio", lambda: store.create(session()))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert ("sessions.db-wal" in modes) == (journal == "wal")
    run("asyncio", store.aclose)


def test_no_session_id_is_in_it(journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path) -> None:
    store, made = new_store(), session(data={"key": "seen"})

    async def work() -> str:
        await store.create(made)
        return (await store.rotate(made.session_id)).session_id

    rotated = run("asyncio", work)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"seen" in stored
    for session_id in (made.session_id, rotated):
        assert session_id.encode() not in stored
        assert session_id[8:].encode() not in stored
    run("asyncio", store.aclose)


def test_it_says_what_it_is(new_store: Callable[..., SqliteStore], tmp_path: Path) -> None:
    store = new_store()
    run("asyncio", store.check)
    run("asyncio", store.aclose)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (files.APPLICATION_ID,)
        assert database.execute("PRAGMA user_version").fetchone() == (files.SCHEMA_VERSION,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_is_no_database_is_refused(new_store: Callable[..., SqliteStore], tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_bytes(b"the diary of a stranger\n" * 100)
    assert "no SQLite database" in reason(new_store(), UsageError)
    assert (tmp_path / "sessions.db").read_bytes().startswith(b"the diary")


def test_a_folder_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert f"{path} is no file" in reason(SqliteStore(path), UsageError)


def test_the_database_of_something_else_is_refused(
    new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    foreign(tmp_path / "sessions.db", "CREATE TABLE diary (day TEXT)")
    assert "of something else" in reason(new_store(), UsageError)
    foreign(tmp_path / "sessions.db", "PRAGMA application_id = 7")
    assert "of something else" in reason(new_store(), UsageError)


def test_another_format_is_refused(new_store: Callable[..., SqliteStore], tmp_path: Path) -> None:
    store = new_store()
    run("asyncio", store.check)
    run("asyncio", store.aclose)
    foreign(tmp_path / "sessions.db", "PRAGMA user_version = 2")
    told = reason(new_store(), UsageError)
    assert "the format 2" in told
    assert "has 1" in told


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "nowhere/sessions.db")
    assert "its folder must exist" in reason(store, UnavailableError)
    (tmp_path / "nowhere").mkdir()
    run("asyncio", store.check)  # nothing needs a restart
    run("asyncio", store.aclose)


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 54, 1), True),
    ],
)
def test_wal_is_for_libraries_without_its_bug(version: tuple[int, ...], safe: bool) -> None:
    assert files.wal_is_safe(version) == safe


def test_an_old_library_refuses_wal_and_a_new_one_takes_what_is_there(
    new_store: Callable[..., SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "library_version", lambda: WAL_VERSION)
    store, made = new_store(), session()
    run("asyncio", lambda: store.create(made))
    run("asyncio", store.aclose)
    monkeypatch.setattr(files, "library_version", lambda: OLD_VERSION)
    assert "is in WAL mode" in reason(new_store(), UsageError)
    foreign(tmp_path / "sessions.db", "PRAGMA journal_mode = delete")  # as the message says
    for version in (OLD_VERSION, WAL_VERSION):
        monkeypatch.setattr(files, "library_version", lambda version=version: version)
        store = new_store()
        assert run("asyncio", partial(store.get, made.session_id)) is not None
        run("asyncio", store.aclose)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() != ("wal",)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(
    kind: str, new_store: Callable[..., SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"40 22 0:39 / {tmp_path} rw,relatime shared:9 - {kind} host:/share rw\n"
    )
    monkeypatch.setattr(files, "MOUNTS", mounts)
    assert f"network file system ({kind})" in reason(new_store(), UsageError)
    mounts.write_text("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")
    run("asyncio", new_store().check)


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", 7, b"sessions.db"])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(UsageError):
        SqliteStore(path)  # type: ignore[arg-type]


def test_a_url_in_place_of_a_path_is_refused_with_what_to_call() -> None:
    with pytest.raises(UsageError, match="store_from_url"):
        SqliteStore("sqlite:///sessions.db")
