"""The supervisor against real processes that are killed, stopped, hang, fail, and are probed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from greenroom_cluster.keeper import SupervisionSettings
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime import processes
from greenroom_cluster.runtime.hardening import tractor
from greenroom_cluster.runtime.supervision import (
    ChildProcess,
    ChildSpec,
    RestartLimitError,
    Supervisor,
    open_supervisor,
)
from tests.cluster.supervision import children
from tests.cluster.supervision.children import ServeSettings
from tests.listening import as_root, listening_ports

pytestmark = [pytest.mark.system, pytest.mark.trio]

ROOT = Path(__file__).parents[3]
RELEASED = pytest.mark.skipif(
    not hasattr(tractor, "_actor"), reason="it speaks as tractor 0.1.0a5 does, the version that we pin"
)


class Observer:
    """Records what a supervisor tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.ready: list[ChildProcess] = []
        self.exited: list[tuple[ChildProcess, float]] = []
        self._changed = trio.Condition()
        self._event = trio.Event()

    def on_ready(self, child: ChildProcess) -> None:
        self.ready.append(child)
        self._wake()

    def on_exit(self, child: ChildProcess) -> None:
        self.exited.append((child, time.monotonic()))
        self._wake()

    def _wake(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float = 15.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await self._event.wait()


@asynccontextmanager
async def supervising(
    observer: Observer, *, limit: int = 10, settings: SupervisionSettings | None = None
) -> AsyncIterator[Supervisor]:
    async with open_supervisor(
        "test",
        restarts=RestartSettings(restarts_max=limit),
        on_ready=observer.on_ready,
        on_exit=observer.on_exit,
        settings=settings,
    ) as supervisor:
        yield supervisor


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def serve(name: str, marker: str = "") -> ChildSpec:
    return ChildSpec(name, children.serve, lambda incarnation: ServeSettings(incarnation, marker))


async def test_a_child_cannot_be_dumped() -> None:
    observer = Observer()
    async with supervising(observer) as supervisor:
        supervisor.start_child(ChildSpec("a", children.tell_dumpable, ServeSettings))
        await observer.until(lambda: bool(observer.ready))
        assert observer.ready[0].address == "0 (0, 0)"


async def test_what_an_operator_must_do_is_told_of_a_child_that_was_ready() -> None:
    """It is started again, and says so each time: nothing else tells why it ends."""
    seen = Observer()
    with structlog.testing.capture_logs() as logged:
        async with supervising(seen) as supervisor:
            supervisor.start_child(ChildSpec("a", children.refuse_once_ready, ServeSettings))
            await seen.until(lambda: len(seen.exited) >= 2)
    told = [line["reason"] for line in logged if line["event"] == "process_refused"]
    assert told[:1] == ["the marker has become impossible"]


async def test_a_killed_child_is_reported_at_once() -> None:
    """One for one: the other child never notices."""
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(serve("a"))
        supervisor.start_child(serve("b"))
        await seen.until(lambda: len(seen.ready) == 2)
        first = next(child for child in seen.ready if child.name == "a")
        assert processes.is_alive(first.pid, first.started_ticks)
        assert first.address == f"child:{first.incarnation.hex()}"
        killed = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        await seen.until(lambda: bool(seen.exited))
        child, when = seen.exited[0]
        assert child is first
        assert child.exit_status == -signal.SIGKILL
        assert when - killed < 0.1
        await seen.until(lambda: len(seen.ready) == 3)
        second = seen.ready[2]
        assert second.name == "a"
        assert second.incarnation != first.incarnation
        assert second.pid != first.pid
        assert len(seen.exited) == 1


async def test_an_unexpected_end_is_a_warning_and_a_requested_one_is_not() -> None:
    seen = Observer()
    with structlog.testing.capture_logs() as logged:
        async with supervising(seen) as supervisor:
            supervisor.start_child(serve("a"))
            await seen.until(lambda: len(seen.ready) == 1)
            os.kill(seen.ready[0].pid, signal.SIGKILL)
            await seen.until(lambda: len(seen.ready) == 2)
    killed, stopped = [line for line in logged if line["event"] == "process_ended"]
    assert (killed["log_level"], killed["exit_status"]) == ("warning", -signal.SIGKILL)
    assert "started again" in killed["hint"]
    assert (stopped["log_level"], stopped["exit_status"]) == ("info", 0)


async def test_hung_child_is_killed_and_restarted() -> None:
    """A blocked event loop sends no heartbeats, though its process lives."""
    seen = Observer()
    async with supervising(seen, settings=SupervisionSettings(hang_seconds=1.0)) as supervisor:
        supervisor.start_child(ChildSpec("a", children.block_after_ready, ServeSettings))
        await seen.until(lambda: bool(seen.exited))
        assert seen.exited[0][0].exit_status == -signal.SIGKILL
        await seen.until(lambda: len(seen.ready) == 2)


async def test_stopped_child_is_killed_and_restarted() -> None:
    """SIGSTOP: neither the process's end nor its connection's is ever seen."""
    seen = Observer()
    async with supervising(seen, settings=SupervisionSettings(hang_seconds=1.0)) as supervisor:
        supervisor.start_child(serve("a"))
        await seen.until(lambda: len(seen.ready) == 1)
        os.kill(seen.ready[0].pid, signal.SIGSTOP)
        await seen.until(lambda: len(seen.ready) == 2)
        assert not processes.is_alive(seen.ready[0].pid, seen.ready[0].started_ticks)


async def test_stop_lets_children_clean_up(tmp_path: Path) -> None:
    """A child that is asked to stop runs its cleanup and leaves with status 0."""
    marker = tmp_path / "marker"
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(serve("a", str(marker)))
        await seen.until(lambda: bool(seen.ready))
    assert marker.read_text() == "cleaned up"
    assert seen.exited[0][0].exit_status == 0
    assert len(seen.ready) == 1


async def test_stop_is_bounded_whatever_the_children_do() -> None:
    """One ignores the request, one is stopped, one is still starting: none outlives the supervisor."""
    seen = Observer()
    settings = SupervisionSettings(stop_seconds=0.5)
    async with supervising(seen, settings=settings) as supervisor:
        supervisor.start_child(ChildSpec("ignores", children.ignore_stop, ServeSettings))
        supervisor.start_child(serve("stopped"))
        await seen.until(lambda: len(seen.ready) == 2)
        stopped = next(child for child in seen.ready if child.name == "stopped")
        os.kill(stopped.pid, signal.SIGSTOP)
        supervisor.start_child(serve("starting"))
        began = time.monotonic()
        with trio.fail_after(5):
            await supervisor.stop()
    assert time.monotonic() - began < 5
    assert not [
        pid
        for pid in processes.children_of(os.getpid())
        if "greenroom_cluster.runtime.child" in processes.command_line(pid)
    ]


@RELEASED
async def test_stop_at_the_moment_in_which_a_child_connects_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tractor then waited, shielded, for the end of a nursery that waited for it."""
    seen, connects, rescued = Observer(), trio.Event(), []
    send = tractor._ipc.Channel.send

    async def send_until_killed(channel: Any, message: Any) -> None:
        await send(channel, message)
        if message is not None and "_parent_main_data" in message:
            connects.set()
            with trio.CancelScope(shield=True):
                await seen.until(lambda: bool(seen.exited))

    async def rescue(actor: Any) -> None:
        await trio.sleep(10)
        for started in actor._actoruid2nursery.values():
            rescued.append(started)
            started._join_procs.set()

    monkeypatch.setattr(tractor._ipc.Channel, "send", send_until_killed)
    async with trio.open_nursery() as tasks:
        async with supervising(seen) as supervisor:
            tasks.start_soon(rescue, tractor.current_actor())
            supervisor.start_child(serve("a"))
            await connects.wait()
        tasks.cancel_scope.cancel()
    assert not rescued


async def test_cancelled_supervisor_leaves_no_process() -> None:
    """Whoever cancels the supervisor has not to wait for its children."""
    seen = Observer()
    with trio.CancelScope() as scope:
        async with supervising(seen) as supervisor:
            supervisor.start_child(serve("a"))
            await seen.until(lambda: bool(seen.ready))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    child = seen.ready[0]
    assert not processes.is_alive(child.pid, child.started_ticks)


@pytest.mark.parametrize("work", [children.end_at_once, children.die_while_starting])
async def test_child_that_keeps_ending_makes_the_supervisor_give_up(work: Callable[..., object]) -> None:
    """Restarting does not repair it; the error names the child and the options."""
    seen = Observer()

    async def run() -> None:
        async with supervising(seen, limit=2) as supervisor:
            supervisor.start_child(ChildSpec("bad", work, ServeSettings))
            await trio.sleep_forever()

    with trio.fail_after(30), pytest.raises(RestartLimitError, match=r"bad exited 3 times .*--restarts-max"):
        await run()
    assert len(seen.exited) == 3


async def test_child_killed_before_it_connects_is_restarted() -> None:
    """tractor itself would wait for it for ever."""
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(serve("a"))
        with trio.fail_after(10):
            while not supervisor.children["a"].pid:
                await trio.testing.wait_all_tasks_blocked(0.001)
        os.kill(supervisor.children["a"].pid, signal.SIGKILL)
        await seen.until(lambda: len(seen.ready) == 1)
        assert len(seen.exited) == 1


@as_root
async def test_nothing_of_a_tree_listens() -> None:
    """No port on which anybody could speak to a supervisor or a child, also while one starts or restarts."""
    seen = Observer()

    def ports() -> set[int]:
        return listening_ports([os.getpid(), *processes.children_of(os.getpid())])

    async def watch() -> None:
        while True:
            assert not ports()
            await trio.sleep(0.005)

    assert not ports(), "the test needs a process that listens nowhere itself"
    async with trio.open_nursery() as tasks:
        tasks.start_soon(watch)
        async with supervising(seen) as supervisor:
            supervisor.start_child(serve("a"))
            await seen.until(lambda: len(seen.ready) == 1)
            os.kill(seen.ready[0].pid, signal.SIGKILL)
            await seen.until(lambda: len(seen.ready) == 2)
        tasks.cancel_scope.cancel()


@RELEASED
@pytest.mark.parametrize(
    "work",
    [
        children.cancel_the_supervisor,
        children.stop_the_supervisors_server,
        children.send_an_error_for_nobody,
        children.send_garbage,
        children.hang_up,
    ],
)
async def test_whatever_one_child_says_the_supervisor_starts_it_again(work: Callable[..., object]) -> None:
    """It was told to stop its own work, and could start nothing any more."""
    seen = Observer()
    settings = SupervisionSettings(hang_seconds=2.0)
    async with supervising(seen, settings=settings) as supervisor:
        supervisor.start_child(serve("other"))
        supervisor.start_child(ChildSpec("bad", work, ServeSettings))
        await seen.until(lambda: [child.name for child in seen.ready].count("bad") == 3, 30)
        assert {child.name for child, _ in seen.exited} == {"bad"}
    assert supervisor.failure is None


SUPERVISE_AND_PRINT = """
import sys, trio
from greenroom_cluster import logs
from tests.cluster.supervision.test_supervisor import Observer, supervising, serve
async def main():
    logs.configure(logs.LogSettings())
    seen = Observer()
    async with supervising(seen) as supervisor:
        for name in ("a", "b"):
            supervisor.start_child(serve(name))
        await seen.until(lambda: len(seen.ready) == 2)
        print(*[child.pid for child in seen.ready], flush=True)
        await trio.sleep_forever()
if __name__ == "__main__":
    trio.run(main)
"""


@pytest.mark.parametrize("moment", ["ready", "restarting"])
async def test_killed_supervisor_leaves_no_process(moment: str) -> None:
    """Children watch their supervisor; within 2 s all are gone, also one that is just being started."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-c", SUPERVISE_AND_PRINT],
                stdout=subprocess.PIPE,
                check=False,
                cwd=ROOT,
            )
        )
        with trio.fail_after(20):
            pids = [int(pid) for pid in (await process.stdout.receive_some()).split()]
        handles = [processes.ProcessHandle(pid) for pid in pids]
        if moment == "restarting":
            handles[0].kill()
            with trio.fail_after(5):
                while len(set(processes.children_of(process.pid)) - set(pids)) == 0:
                    await trio.testing.wait_all_tasks_blocked(0.001)
            handles += [processes.ProcessHandle(pid) for pid in processes.children_of(process.pid)]
        process.kill()
        with trio.fail_after(2):
            for handle in handles:
                await handle.wait_exited()
        for handle in handles:
            handle.close()


# --- readings --------------------------------------------------------------------------------------------


async def test_a_child_answers_what_it_is_asked() -> None:
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(ChildSpec("a", children.answer, ServeSettings))
        supervisor.start_child(serve("b"))
        await seen.until(lambda: len(seen.ready) == 2)
        assert await supervisor.ask("a", 10) == b"1"
        assert await supervisor.ask("a", 10) == b"2"
        assert await supervisor.ask("b", 10) == b"", "it has nothing to tell"
        assert await supervisor.ask("nobody", 10) is None
        assert supervisor.starts == {"a": 1, "b": 1}


async def test_a_child_that_stands_still_is_asked_once() -> None:
    """However often somebody waits for it: else its channel would fill."""
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(ChildSpec("a", children.answer, ServeSettings))
        await seen.until(lambda: bool(seen.ready))
        os.kill(seen.ready[0].pid, signal.SIGSTOP)
        for _ in range(20):
            assert await supervisor.ask("a", 0.01) is None
        os.kill(seen.ready[0].pid, signal.SIGCONT)
        assert await supervisor.ask("a", 10) == b"1"
        assert await supervisor.ask("a", 10) == b"2"


async def test_a_child_that_cannot_tell_goes_on() -> None:
    seen = Observer()
    async with supervising(seen) as supervisor:
        supervisor.start_child(ChildSpec("a", children.answer_with_an_error, ServeSettings))
        await seen.until(lambda: bool(seen.ready))
        for _ in range(2):
            assert await supervisor.ask("a", 10) == b""
        assert not seen.exited
