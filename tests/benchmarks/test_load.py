"""The load itself, on stores in memory and under each library."""

from typing import Any

import pytest

from benchmarks import load
from benchmarks.contenders.greenroom import MemoryClient
from benchmarks.loops import Loop, loop_named
from benchmarks.orders import WORKS, Fill, LoopName, Measure, Record
from benchmarks.sessions import session_data, session_id

LOOPS: tuple[LoopName, ...] = ("asyncio", "trio")


class ForgetfulClient(MemoryClient):
    """Acknowledges writes that it does not make."""

    async def save(self, number: int, data: dict[str, Any]) -> None:
        if number % 2:
            await super().save(number, data)


async def filled(client: MemoryClient, loop: Loop, count: int = 100) -> None:
    await load.fill(client, loop, Fill(first=0, count=count, size=300))
    client.choose([session_id(number) for number in range(count)], session_data(300))


@pytest.mark.parametrize("name", LOOPS)
def test_every_work_is_done(name: LoopName) -> None:
    loop = loop_named(name)

    async def main() -> None:
        client = MemoryClient({})
        await filled(client, loop)
        for work in WORKS:
            sample = await load.measure(client, loop, Measure(work=work, callers=3, seconds=0.01))
            assert sample.operations > 0
            assert sample.errors == 0
        patched = await client.data_of(0)
        assert patched is not None
        assert patched["theme"] == "light"

    loop.run(main)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(("make", "loses"), [(MemoryClient, False), (ForgetfulClient, True)])
def test_lost_writes_are_found(name: LoopName, make: type[MemoryClient], loses: bool) -> None:
    loop = loop_named(name)

    async def main() -> None:
        client = make({})
        await filled(client, loop, 1000)
        recorder = load.Recorder(client, loop)
        recorded = await recorder.record(Record(callers=2, seconds=0.05, pause_seconds=0.001))
        audited = await recorder.audit()
        assert recorded.errors == {}
        assert audited.acknowledged_writes > 0
        assert (audited.lost_writes > 0) is loses
        assert (recorded.stale_reads > 0) is loses

    loop.run(main)
