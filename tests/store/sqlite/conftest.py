"""Files and disks for the tests of SqliteStore."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom import SqliteStore
from greenroom.sqlite import files
from greenroom.testing import available_libraries
from tests.store.sqlite.sqlite_stage import OLD_VERSION, WAL_VERSION, Disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            made.meet(statement)
            return super().execute(statement, *values)

        def executemany(self, statement: str, *values: Any) -> sqlite3.Cursor:
            made.meet(statement)
            return super().executemany(statement, *values)

    connect, pragmas = sqlite3.connect, files._pragmas
    monkeypatch.setattr(
        files.sqlite3, "connect", lambda path, **more: connect(path, factory=Connection, **more)
    )
    monkeypatch.setattr(files, "_pragmas", lambda *some, **more: (*pragmas(*some, **more), *made.pragmas))
    yield made
    made.heal()
    for gate in made._gates.values():
        gate.set()


@pytest.fixture(params=[WAL_VERSION, OLD_VERSION], ids=["wal", "rollback"])
def journal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of file. Without a fixed SQLite one process alone may use WAL, as it does here."""
    monkeypatch.setattr(files, "library_version", lambda: request.param)
    return "wal" if request.param == WAL_VERSION else "rollback"


@pytest.fixture
def wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """WAL alone, as with a SQLite that has no bug in it."""
    monkeypatch.setattr(files, "library_version", lambda: WAL_VERSION)


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[..., SqliteStore]:
    return lambda **options: SqliteStore(tmp_path / "sessions.db", **options)


@pytest.fixture(params=available_libraries())
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)
