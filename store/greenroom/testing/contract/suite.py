"""The contract as a pytest class, and as a plain function."""

from collections.abc import Callable
from typing import Any

from greenroom.sessions import ALL_FEATURES, BaseSessionStore, SessionData
from greenroom.testing.contract import concurrency, endings, lifecycle, patches, users
from greenroom.testing.contract.libraries import available_libraries, library_named
from greenroom.testing.contract.stage import Check, ManualClock, Stage

CHECKS: tuple[Check, ...] = (
    *lifecycle.CHECKS,
    *patches.CHECKS,
    *users.CHECKS,
    *concurrency.CHECKS,
    *endings.CHECKS,
)
"""The whole contract, check by check."""
CHECK_SECONDS = 60.0


def run_check(
    check: Check,
    make_store: Callable[[], BaseSessionStore],
    *,
    library: str = "asyncio",
    clock: Callable[[], ManualClock | None] = lambda: None,
    seconds: float = CHECK_SECONDS,
) -> bool:
    """Run one check in an event loop of its own; return False if the store lacks a feature for it.

    `clock` returns the clock of the store that was just made. Raises AssertionError if the store breaks the
    contract, TimeoutError if it takes more than `seconds`, and whatever else the store raises.
    """
    chosen = library_named(library)

    async def main() -> bool:
        async with make_store() as store:
            if not check.features <= store.features:
                return False
            await check.run(Stage(store, chosen, clock()))
            return True

    return chosen.run(main, seconds)


class StoreContract:
    """Inherit from this in a class named `Test...` and write `make_store`; see `greenroom.testing`.

    `libraries` are the async libraries to check under; `clock` is set by a `make_store` that has one;
    `check_seconds` is how long one check may take. Checks that need more than `offers` are not even
    collected; by default all are, and those that the store's `features` rule out are skipped.
    """

    libraries: tuple[str, ...] = available_libraries()
    check_seconds: float = CHECK_SECONDS
    clock: ManualClock | None = None
    offers: frozenset[str] = ALL_FEATURES

    def make_store(self) -> BaseSessionStore:
        """Return the store to check."""
        raise TypeError(f"{type(self).__name__} must define make_store, which returns the store to check")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make one test of every check and library. Called by pytest."""
        if "library" in metafunc.fixturenames:
            metafunc.parametrize("library", self.libraries)
        if "check" in metafunc.fixturenames:
            checks = [check for check in CHECKS if check.features <= self.offers]
            metafunc.parametrize("check", checks, ids=[check.name for check in checks])

    def test_contract(self, check: Check, library: str) -> None:
        """The store keeps this promise, under this library."""
        checked = run_check(
            check, self.make_store, library=library, clock=lambda: self.clock, seconds=self.check_seconds
        )
        if not checked:
            import pytest

            pytest.skip(f"the store does not offer {', '.join(sorted(check.features))}")

    def test_successive_loops(self, library: str) -> None:
        """One store object serves one event loop after the other, of either library, without being closed."""
        store = self.make_store()
        stage = Stage(store, library_named(library), self.clock)
        session = stage.session(data={"loop": 0})
        stage.library.run(lambda: store.create(session), self.check_seconds)
        loops = (library, *self.libraries, library)
        for number, name in enumerate(loops, 1):
            _count_loop(store, name, session, number, self.check_seconds)
        stage.library.run(store.aclose, self.check_seconds)


def _count_loop(
    store: BaseSessionStore, library: str, session: SessionData, number: int, seconds: float
) -> None:
    async def main() -> None:
        found = await store.get(session.session_id)
        if found is None or found.data != {"loop": number - 1}:
            raise AssertionError("a later event loop does not see what an earlier one wrote")
        await store.patch(session.session_id, set={"loop": number})

    library_named(library).run(main, seconds)
