"""Load on a client: callers, each waiting for its answer before it asks again, at once or when it is time."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks.contenders.base import Client
from benchmarks.loops import Loop
from benchmarks.orders import Audited, Fill, Measure, Record, Recorded, WarmUp, WorkName
from benchmarks.samples import Sample, sample_of
from benchmarks.sessions import LIFETIME_SECONDS, session_data, session_id

Operation = Callable[[int], Awaitable[object]]

_BATCH = 64
_STRIDE = 97  # callers start far apart
_WRITES_OF = 5  # of the mix, one operation in five writes
_PATCHES_OF = 10  # of web requests, one in ten changes its session
_READS_OF = 4  # of recorded operations, one in four reads
_AUDIT_SECONDS = 60.0
_AUDITORS = 16
_WRITTEN = 2  # visits of a session that was written; it is stored with 1
_FAILURE_PAUSE_SECONDS = 0.05


def operation_of(client: Client, work: WorkName) -> Operation:
    """Return what one caller does once, given a number that rises by one each time."""
    get, update, patch, total = client.get, client.update, client.patch, len(client.ids)

    async def request_with_change(number: int) -> None:
        await get(number % total)
        await patch(number % total)

    operations: dict[WorkName, Operation] = {
        "get": lambda number: get(number % total),
        "update": lambda number: update(number % total),
        "patch": lambda number: patch(number % total),
        "mix": lambda number: (get if number % _WRITES_OF else update)(number % total),
        "web": lambda number: get(number % total) if number % _PATCHES_OF else request_with_change(number),
    }
    return operations[work]


async def fill(client: Client, loop: Loop, order: Fill) -> float:
    """Store sessions and return how many seconds that took."""
    data = session_data(order.size)
    end = order.first + order.count
    starts = iter(range(order.first, end, _BATCH))
    expires_at = order.expires_at or time.time() + LIFETIME_SECONDS

    async def store() -> None:
        for start in starts:
            ids = [session_id(number) for number in range(start, min(end, start + _BATCH))]
            await client.create(ids, data, expires_at)

    began = time.monotonic()
    await loop.together([store] * order.callers)
    return time.monotonic() - began


async def warm_up(client: Client, loop: Loop, order: WarmUp) -> None:
    """Have every caller work once."""
    operation = operation_of(client, order.work)

    async def call(number: int) -> None:
        await operation(number)

    await loop.together([partial(call, start) for start in _starts(order.callers)])


def _starts(callers: int) -> list[int]:
    return [caller * _STRIDE for caller in range(callers)]


async def measure(client: Client, loop: Loop, order: Measure) -> Sample:
    """Have the callers of the order repeat its work."""
    operation = operation_of(client, order.work)
    latencies: list[float] = []
    errors = 0
    clock = time.perf_counter

    async def call(number: int) -> None:
        began = clock()
        while began < until:
            await operation(number)
            number += 1
            ended = clock()
            latencies.append(ended - began)
            began = ended

    async def paced_call(number: int) -> None:
        nonlocal errors
        due = clock()
        while due < until:
            try:
                await operation(number)
                # From when it was due: who is kept waiting by one answer asks late for the next.
                latencies.append(clock() - due)
            except Exception:
                if not order.tolerant:
                    raise
                errors += 1
                await loop.sleep(_FAILURE_PAUSE_SECONDS)
                due = clock()
            number += 1
            due += order.period_seconds
            await loop.sleep(max(0.0, due - clock()))

    caller = paced_call if order.period_seconds else call
    cpu, began = time.process_time(), clock()
    until = began + order.seconds
    await loop.together([partial(caller, start) for start in _starts(order.callers)])
    return sample_of(latencies, clock() - began, time.process_time() - cpu, errors)


class Recorder:
    """Writes and reads sessions and remembers what was acknowledged.

    Every write goes to a session that is not written again, so nothing later covers up that it was lost.
    Reads are of what the same caller wrote last.
    """

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client = client
        self._loop = loop
        self._acknowledged: set[int] = set()
        self._errors: Counter[str] = Counter()
        self._failures: list[float] = []
        self._stale_reads = 0

    async def record(self, order: Record) -> Recorded:
        """Have the callers work for the order's seconds, each with a pause after every operation.

        There must be a session for every write.
        """
        clock = time.monotonic
        began = clock()
        until = began + order.seconds
        reads: list[list[float]] = [[] for _ in range(order.callers)]
        writes: list[list[float]] = [[] for _ in range(order.callers)]

        async def call(caller: int) -> None:
            own = iter(range(caller, len(self._client.ids), order.callers))
            written = None
            turn = 0
            while clock() < until:
                turn += 1
                try:
                    if turn % _READS_OF == 0 and written is not None:
                        await self._read(written)
                        reads[caller].append(clock())
                    else:
                        written = await self._write(next(own))
                        writes[caller].append(clock())
                except Exception as error:  # noqa: BLE001  contenders raise what they like; it counts
                    self._errors[type(error).__name__] += 1
                    self._failures.append(clock())
                    await self._loop.sleep(_FAILURE_PAUSE_SECONDS)
                await self._loop.sleep(order.pause_seconds)

        await self._loop.together([partial(call, caller) for caller in range(order.callers)])
        return Recorded(
            began=began,
            ended=clock(),
            reads=reads,
            writes=writes,
            failures=self._failures,
            errors=dict(self._errors),
            stale_reads=self._stale_reads,
        )

    async def _write(self, number: int) -> int:
        await self._client.save(number, {**self._client.data, "visits": _WRITTEN})
        self._acknowledged.add(number)
        return number

    async def _read(self, number: int) -> None:
        if not _is_written(await self._client.data_of(number)):
            self._stale_reads += 1

    async def audit(self) -> Audited:
        """Read everything once more and count what is not there. Raises if a session cannot be read."""
        numbers = iter(sorted(self._acknowledged))
        deadline = time.monotonic() + _AUDIT_SECONDS
        lost = 0

        async def look() -> None:
            nonlocal lost
            for number in numbers:
                found = await self._read_patiently(number, deadline)
                lost += not _is_written(found)

        await self._loop.together([look] * _AUDITORS)
        return Audited(acknowledged_writes=len(self._acknowledged), lost_writes=lost)

    async def _read_patiently(self, number: int, deadline: float) -> dict[str, Any] | None:
        while True:
            try:
                return await self._client.data_of(number)
            except Exception:
                if time.monotonic() > deadline:
                    raise
                await self._loop.sleep(_FAILURE_PAUSE_SECONDS)


def _is_written(data: dict[str, Any] | None) -> bool:
    return data is not None and data["visits"] == _WRITTEN
