"""A client process: reads a `Setup` and then orders from stdin, one line each, and answers each with a line.

Each contender has a process of its own, so that each has its own event loop and its CPU time can be told.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import TypeAlias, cast

import msgspec

from benchmarks import load
from benchmarks.contenders.base import Client
from benchmarks.contenders.catalogue import client_class
from benchmarks.loops import Loop, loop_named
from benchmarks.orders import (
    Answer,
    Audit,
    Audited,
    Broken,
    Choose,
    Done,
    Fill,
    Measure,
    Measured,
    Order,
    Record,
    Setup,
    WarmUp,
)
from benchmarks.sessions import sampled_numbers, session_data, session_id

_orders: "msgspec.json.Decoder[Order]" = msgspec.json.Decoder(Order)

_Say: TypeAlias = Callable[[Answer], None]


def keep_stdout() -> _Say:
    """Return what answers on stdout. Whatever else is printed there from now on goes to stderr.

    Libraries print what they like, from native code too, and nothing of it may be taken for an answer.
    """
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(answer: Answer) -> None:
        own.write(msgspec.json.encode(answer) + b"\n")

    return say


class _Worker:
    def __init__(self, client: Client, loop: Loop, versions: dict[str, str], say: _Say) -> None:
        self._client = client
        self._loop = loop
        self._versions = versions
        self._say = say
        self._recorder = load.Recorder(client, loop)

    async def work(self) -> None:
        """Obey until stdin ends."""
        await self._client.open()
        self._say(Done(versions=self._versions))
        while line := await self._loop.read_line():
            try:
                answer = await self._obey(_orders.decode(line))
            except Exception as error:  # noqa: BLE001  reported to the benchmark, which decides
                answer = Broken(reason=f"{type(error).__name__}: {error}")
            self._say(answer)
        await self._client.close()

    async def _obey(self, order: Order) -> Answer:
        match order:
            case Fill():
                return Done(seconds=await load.fill(self._client, self._loop, order))
            case Choose():
                await self._choose(order)
                return Done()
            case WarmUp():
                await load.warm_up(self._client, self._loop, order)
                return Done()
            case Measure():
                return Measured(sample=await load.measure(self._client, self._loop, order))
            case Record():
                self._recorder = load.Recorder(self._client, self._loop)
                return await self._recorder.record(order)
            case Audit():
                audited: Audited = await self._recorder.audit()
                return audited

    async def _choose(self, order: Choose) -> None:
        data = session_data(order.size)
        numbers = sampled_numbers(order.total, order.sample)
        self._client.choose([session_id(order.first + number) for number in numbers], data)
        await self._client.save(0, data)  # what an earlier patch has changed
        if await self._client.data_of(0) != data:
            raise RuntimeError("what was stored is not what is found")


def main() -> None:
    """Run one client process."""
    say = keep_stdout()
    setup = msgspec.json.decode(sys.stdin.readline(), type=Setup)
    try:
        make = client_class(setup.client)
        versions = {name: importlib.metadata.version(name) for name in make.packages}
        loop = loop_named(setup.loop)
        if setup.loop == "uvloop":
            importlib.import_module("uvloop")
    except ModuleNotFoundError as error:
        say(Broken(reason=str(error), missing=cast("str", error.name)))
        return

    async def work() -> None:
        await _Worker(make(setup.addresses), loop, versions, say).work()

    loop.run(work)


if __name__ == "__main__":
    main()
