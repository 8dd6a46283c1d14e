"""The contract of session stores as tests, for anyone who writes or configures a store.

Under pytest, five lines run every check over a store, under asyncio and (where installed) trio:

>>> from greenroom.testing import StoreContract
>>>
>>> class TestMyStore(StoreContract):
...     def make_store(self):
...         return MyStore("localhost:6379")

`make_store` is called inside the event loop, once for every check, and the store is closed after the check.
It may return the same object again if that can be used after `aclose`. A store may hold other sessions:
checks use ids and users of their own, and leave sessions behind that expire within hours. Checks of what
`store.features` does not name are skipped. No pytest plugin is needed.

Checks of expiry write sessions that live for a fraction of a second and poll until they are gone. A store
whose clock can be set is checked faster and more sharply with a `ManualClock`:

>>> class TestMemoryStore(StoreContract):
...     def make_store(self):
...         self.clock = ManualClock()
...         return MemoryStore(clock=self.clock)

Without pytest: `run_check(check, make_store, library="asyncio")` for each of `CHECKS`.

For tests of apps: `login_as(client, "alice")` logs a test client in, `FaultyStore` fails or waits on demand,
and `MemoryStore(clock=clock)` with `Session(clock=clock)` follow a `ManualClock`.

`greenroom.testing.stateful.StoreMachine` (needs hypothesis) compares a store with a model over random series
of operations; see there.
"""

from contextlib import suppress

with suppress(ImportError):
    import pytest

    # Before the modules with the checks are imported, so that their asserts show the values compared.
    pytest.register_assert_rewrite(
        "greenroom.testing.contract.lifecycle",
        "greenroom.testing.contract.patches",
        "greenroom.testing.contract.users",
        "greenroom.testing.contract.concurrency",
        "greenroom.testing.stateful",
    )

from greenroom.testing.contract.libraries import Library, available_libraries, library_named
from greenroom.testing.contract.stage import Check, ManualClock, Stage
from greenroom.testing.contract.suite import CHECKS, StoreContract, run_check
from greenroom.testing.faults import FaultyStore, Gate
from greenroom.testing.logins import login_as

__all__ = [
    "CHECKS",
    "Check",
    "FaultyStore",
    "Gate",
    "Library",
    "ManualClock",
    "Stage",
    "StoreContract",
    "available_libraries",
    "library_named",
    "login_as",
    "run_check",
]
