"""SqliteStore does what the model does, through random series of operations."""

import tempfile
from pathlib import Path

from hypothesis import settings

from greenroom import BaseSessionStore, SqliteStore
from greenroom.testing import ManualClock
from greenroom.testing.stateful import StoreMachine

SETTINGS = settings(max_examples=25, stateful_step_count=40, deadline=None)


class SqliteMachine(StoreMachine):
    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        path = Path(self.folder.name) / "sessions.db"
        return SqliteStore(path, clock=self.clock, synchronous="normal")


class TrioSqliteMachine(SqliteMachine):
    library = "trio"


TestSqliteUnderAsyncio = SqliteMachine.TestCase
TestSqliteUnderAsyncio.settings = SETTINGS

TestSqliteUnderTrio = TrioSqliteMachine.TestCase
TestSqliteUnderTrio.settings = SETTINGS
