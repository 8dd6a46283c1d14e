"""The runner of a loop is found again without asking for the loop, and never taken for that of another."""

import asyncio
import random
import threading

import pytest
import trio

from greenroom.dialog import Dialog, DialogSettings
from greenroom.drivers import Runner, registry
from greenroom.drivers.registry import Registry
from greenroom.errors import UsageError


def made() -> Registry:
    settings = DialogSettings(seeds=("127.0.0.1:1",))
    return Registry(lambda: Dialog(bytes, settings, random.Random(1)))


def run_in(loop: asyncio.AbstractEventLoop, runners: Registry) -> Runner:
    async def current() -> Runner:
        found = runners.current()
        assert runners.current() is found
        return found

    return loop.run_until_complete(current())


def test_a_loop_is_asked_for_once_in_each_of_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    running_loop = registry.running_loop
    monkeypatch.setattr(registry, "running_loop", lambda: asked.append(1) or running_loop())
    runners, loop = made(), asyncio.new_event_loop()
    for runs in (1, 2):
        run_in(loop, runners)
        assert len(asked) == runs
    loop.close()


def test_loops_that_take_turns_in_a_thread_have_a_runner_each() -> None:
    runners = made()
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    first = [run_in(loop, runners) for loop in loops]
    assert first[0] is not first[1]
    assert [run_in(loop, runners) for loop in loops] == first
    for loop in loops:
        loop.close()


def test_loops_of_two_threads_that_run_at_once_have_a_runner_each() -> None:
    runners = made()
    found: dict[int, list[Runner]] = {0: [], 1: []}
    together = threading.Barrier(2)

    async def take(own: list[Runner]) -> None:
        for _ in range(20):
            together.wait(10)
            own.append(runners.current())

    threads = [threading.Thread(target=lambda own=own: asyncio.run(take(own))) for own in found.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (set(map(id, each)) for each in found.values())
    assert len(first) == len(second) == 1
    assert first != second


def test_a_closed_or_forgotten_runner_is_not_found_again() -> None:
    runners, loop = made(), asyncio.new_event_loop()

    async def current() -> None:
        closed = runners.current()
        await closed.aclose()
        forgotten = runners.current()
        assert forgotten is not closed
        assert runners.take_all() == [forgotten]
        assert runners.current() is not forgotten

    loop.run_until_complete(current())
    loop.close()


def test_trio_within_asyncio_and_after_it_has_a_runner_of_its_own() -> None:
    runners = made()

    async def in_trio() -> Runner:
        return runners.current()

    async def main() -> tuple[Runner, Runner, Runner]:
        loop = asyncio.get_running_loop()
        before, done = runners.current(), loop.create_future()
        trio.lowlevel.start_guest_run(
            in_trio,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        inner = (await done).unwrap()
        return before, inner, runners.current()

    before, inner, after = asyncio.run(main())
    assert inner is not before
    assert after is before
    assert trio.run(in_trio) not in {before, inner}


def test_there_is_no_runner_outside_of_a_loop() -> None:
    runners = made()
    run_in(loop := asyncio.new_event_loop(), runners)
    loop.close()
    with pytest.raises(UsageError):
        runners.current()
