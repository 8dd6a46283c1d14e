"""The load generators work under both libraries and record what really happened."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from greenroom import MemoryStore, SessionData
from simulations.checks.linearizability import assert_explained, check_history
from tests.system import load

pytestmark = pytest.mark.trio


@pytest.fixture
def autojump_clock() -> MockClock:
    """Pauses take no time."""
    return MockClock(autojump_threshold=0)


async def crew_at_work(store: MemoryStore, tmp_path: Path) -> load.Crew:
    """Work on `store` in this process for 10 s of the test's clock."""
    workload = load.Workload(
        name="t", library="trio", url="memory://", history=str(tmp_path / "h"), workers=6, fixed_sessions=8
    )
    crew = load.Crew(workload)
    for worker in crew.workers:
        worker._recorder._store = store
    closing_time = trio.current_time() + 10

    async def wait(seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await trio.Event().wait()
        return trio.current_time() >= closing_time

    await crew.prepare()
    async with trio.open_nursery() as nursery:
        for worker in crew.workers:
            nursery.start_soon(crew.work, worker, wait)
    await crew.finish()
    return crew


async def test_the_workload_meets_every_operation_and_refusal(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    crew = await crew_at_work(MemoryStore(), tmp_path)
    assert_explained(crew.history)
    seen = Counter((operation.kind, operation.outcome, operation.reason) for operation in crew.history)
    for kind in ("create", "get", "update", "patch", "delete", "rotate"):
        assert seen[(kind, "ok", "")] > 10, kind
    for kind in ("update", "patch", "rotate"):
        assert seen[(kind, "failed", "not_found")] > 3, kind


class ForgetfulStore(MemoryStore):
    """Loses one acknowledged patch in a hundred."""

    patches = 0

    async def patch(self, session_id: str, **more: Any) -> SessionData:
        before = await self.get(session_id)
        session = await super().patch(session_id, **more)
        self.patches += 1
        if self.patches % 100 == 0 and before is not None:
            await self.update(session_id, before)
        return session


async def test_what_a_store_loses_is_in_the_history(tmp_path: Path, autojump_clock: MockClock) -> None:
    crew = await crew_at_work(ForgetfulStore(), tmp_path)
    assert check_history(crew.history)


@pytest.mark.system
@pytest.mark.parametrize("library", ["asyncio", "trio"])
async def test_a_process_of_callers_works_until_the_body_ends(library: load.Library, tmp_path: Path) -> None:
    async with load.open_load(
        "memory://", tmp_path, libraries=[library], fixed_sessions=4, own_sessions=2, pause_seconds=0.001
    ) as running:
        assert running.history == []
    assert_explained(running.history)
    assert len(running.history) >= 6 + 6
    assert running.acknowledged_writes >= 6
    assert running.errors == Counter()
    assert 0 < running.longest_seconds() < 5


@pytest.mark.system
async def test_callers_that_cannot_work_are_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended before it said"):
        async with load.open_load("carrier-pigeon://roof", tmp_path, libraries=["trio"]):
            pass
