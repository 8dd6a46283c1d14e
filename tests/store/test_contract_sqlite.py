"""SqliteStore keeps the contract under both libraries, with WAL and with a rollback journal."""

from pathlib import Path

import pytest

from greenroom import BaseSessionStore, SqliteStore
from greenroom.sqlite import files
from greenroom.testing import ManualClock, StoreContract


class _OnFiles(StoreContract):
    """Every store has a file of its own."""

    library_version: tuple[int, ...] = (3, 51, 3)

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "library_version", lambda: self.library_version)
        self.folder = tmp_path
        self.made = 0

    def path(self) -> Path:
        self.made += 1
        return self.folder / f"sessions-{self.made}.db"

    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return SqliteStore(self.path(), clock=self.clock)


class TestSqliteStore(_OnFiles):
    """A library in which several connections may share a file in WAL mode; here one writes, one reads."""


class TestSqliteStoreWithARollbackJournal(_OnFiles):
    library_version = (3, 40, 1)


class TestSqliteStoreInRealTime(_OnFiles):
    def make_store(self) -> BaseSessionStore:
        return SqliteStore(self.path())
