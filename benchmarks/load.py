"""Closed-loop load: so many callers, each waiting for its answer before it asks again."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One measurement. Rates are per second, times in seconds, CPU seconds per operation."""

    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float


async def measure(
    operation: Callable[[int], Awaitable[object]],
    callers: int,
    seconds: float,
    server_cpu: Callable[[], float],
) -> Sample:
    """Have `callers` repeat the operation for `seconds`."""
    latencies: list[float] = []
    clock = time.perf_counter
    until = clock() + seconds

    async def call(first: int) -> None:
        number = first * 97
        began = clock()
        while began < until:
            await operation(number)
            number += 1
            ended = clock()
            latencies.append(ended - began)
            began = ended

    server_before, client_before, began = server_cpu(), time.process_time(), clock()
    await asyncio.gather(*(call(number) for number in range(callers)))
    took = clock() - began
    done = len(latencies)
    latencies.sort()
    return Sample(
        rate=done / took,
        p50=latencies[done // 2],
        p99=latencies[done * 99 // 100],
        client_cpu=(time.process_time() - client_before) / done,
        server_cpu=(server_cpu() - server_before) / done,
    )
