"""MemoryStore does what the model does, through random series of operations."""

from hypothesis import settings

from greenroom import BaseSessionStore, MemoryStore
from greenroom.testing import ManualClock
from greenroom.testing.stateful import StoreMachine

SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)


class MemoryMachine(StoreMachine):
    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return MemoryStore(clock=self.clock)


class TrioMemoryMachine(MemoryMachine):
    library = "trio"


TestMemoryUnderAsyncio = MemoryMachine.TestCase
TestMemoryUnderAsyncio.settings = SETTINGS

TestMemoryUnderTrio = TrioMemoryMachine.TestCase
TestMemoryUnderTrio.settings = SETTINGS
