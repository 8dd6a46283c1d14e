"""A store that is observed keeps the contract of the store that it is, and offers as much."""

from pathlib import Path

import pytest

from greenroom import BaseSessionStore, MemoryStore, SqliteStore
from greenroom.observing import ObservedStore
from greenroom.testing import ManualClock, StoreContract
from tests.store.observing.stage import Heard
from tests.store.test_contract_memory import FiveMethodStore


class TestObservedMemoryStore(StoreContract):
    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return ObservedStore(MemoryStore(clock=self.clock), Heard())


class TestObservedFiveMethodStore(StoreContract):
    """It offers no more than what is observed."""

    offers = FiveMethodStore.features

    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return ObservedStore(FiveMethodStore(self.clock), Heard())


class TestObservedSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.made = 0

    def make_store(self) -> BaseSessionStore:
        self.made += 1
        self.clock = ManualClock()
        return ObservedStore(SqliteStore(self.folder / f"{self.made}.db", clock=self.clock), Heard())
