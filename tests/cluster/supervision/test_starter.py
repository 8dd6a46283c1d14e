"""Starters against real processes: what they fork, how that ends, and what happens when they are gone."""

import os
import random
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio

from greenroom_cluster.runtime import starter as starters
from greenroom_cluster.runtime.processes import children_of, command_line, is_alive
from greenroom_cluster.runtime.starter import (
    Entry,
    Process,
    Starter,
    StarterGoneError,
    is_starter,
    open_starter,
)

pytestmark = [pytest.mark.forks, pytest.mark.system, pytest.mark.timeout(60)]
ROOT = Path(__file__).parents[3]


def report(arguments: list[str], fds: list[int]) -> None:
    """Write the arguments, and what this process is, to the descriptor; then wait until that is closed."""
    fd, supervisor = fds
    line = socket.socket(fileno=fd)
    held = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    inherited = [each for each in held if each not in (0, 1, 2, fd, supervisor) and _is_open(each)]
    signals = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)]
    line.sendall(repr([arguments, os.getppid(), inherited, signals, os.readlink("/proc/self/fd/0")]).encode())  # noqa: PTH115
    line.recv(1)


def leave(arguments: list[str], _fds: list[int]) -> None:
    sys.exit(int(arguments[0]))


def fail(_arguments: list[str], _fds: list[int]) -> None:
    raise RuntimeError("as this test wants it")


def draw(_arguments: list[str], fds: list[int]) -> None:
    line = socket.socket(fileno=fds[0])
    line.sendall(repr([random.random(), ssl.RAND_bytes(8)]).encode())


def wait(_arguments: list[str], _fds: list[int]) -> None:
    time.sleep(60)


def _is_open(fd: int) -> bool:
    try:
        return not stat.S_ISDIR(os.fstat(fd).st_mode)  # that of the listing
    except OSError:
        return False


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


ENTRIES: dict[str, Entry] = {"report": report, "leave": leave, "fail": fail, "draw": draw, "wait": wait}


@pytest.fixture
def starter() -> Iterator[Starter]:
    # Threads in which trio did something for earlier tests end once they have been idle for 10 s.
    deadline = time.monotonic() + 20
    while threading.active_count() > 1:
        assert time.monotonic() < deadline, threading.enumerate()
        os.sched_yield()
    with open_starter("tests", ENTRIES):
        found = starters.current()
        assert found is not None
        yield found
    assert starters.current() is None


def told(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(30):
            await story()

    trio.run(bounded)


async def started(starter: Starter, entry: str, *arguments: str) -> Process:
    return await starter.start(entry, f"some {entry}", list(arguments), [])


def test_a_forked_process_has_what_it_is_given_and_nothing_else(starter: Starter) -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = await starter.start("report", "some report", ["a", "b"], [theirs.fileno()])
            theirs.close()
            line = trio.socket.from_stdlib_socket(ours.dup())
            arguments, parent, inherited, ignored, stdin = literal_eval((await line.recv(4096)).decode())
            line.close()
            assert arguments == ["a", "b"]
            assert parent == starter.pid
            assert inherited == []
            assert ignored == [True, True]
            assert stdin == os.devnull
            assert command_line(process.pid)[:2] == ["some", "report"]
            assert is_starter(starter.pid)
            assert not is_starter(process.pid)
        assert await process.wait() == 0

    told(story)


def test_each_forked_process_draws_its_own_random_numbers(starter: Starter) -> None:
    drawn = []

    async def story() -> None:
        for _ in range(3):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                async with await starter.start("draw", "some draw", [], [theirs.fileno()]) as process:
                    await process.wait()
                    drawn.append(literal_eval(ours.recv(4096).decode()))

    told(story)
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == 3


@pytest.mark.parametrize(
    ("entry", "arguments", "status"), [("leave", ["0"], 0), ("leave", ["7"], 7), ("fail", [], 70)]
)
def test_the_end_of_a_forked_process_is_told(
    starter: Starter, entry: str, arguments: list[str], status: int
) -> None:
    async def story() -> None:
        process = await started(starter, entry, *arguments)
        assert await process.wait() == status
        assert process.returncode == process.poll() == status
        process.release()
        # tractor may have released it before the supervisor asks.
        assert await starter.status_of(process.pid) == status

    told(story)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_forked_process_ends_by_a_signal(starter: Starter, number: signal.Signals) -> None:
    async def story() -> None:
        async with await started(starter, "wait") as process:
            assert process.poll() is None
            os.kill(process.pid, number)
            assert await process.wait() == -number

    told(story)


def test_one_is_found_by_its_title_until_it_is_released(starter: Starter) -> None:
    async def story() -> None:
        async with await starter.start("wait", "child of-1234", [], []) as process:
            handle = starter.find("1234")
            assert handle is not None
            assert handle.pid == process.pid
            assert starter.find("5678") is None
            process.kill()
            await handle.wait_exited()
            handle.close()
        assert starter.find("1234") is None

    told(story)


def test_many_are_started_at_once_and_nothing_is_left_behind(starter: Starter) -> None:
    async def story() -> None:
        before = open_files()
        statuses = []

        async def one(status: int) -> None:
            async with await started(starter, "leave", str(status)) as process:
                statuses.append((status, await process.wait()))

        async with trio.open_nursery() as nursery:
            for status in range(40):
                nursery.start_soon(one, status)
        assert sorted(statuses) == [(status, status) for status in range(40)]
        assert children_of(starter.pid) == []
        assert open_files() <= before

    told(story)


def test_a_starter_that_is_gone_is_told_once_and_asked_no_more(starter: Starter) -> None:
    async def story() -> None:
        process = await started(starter, "wait")
        os.kill(starter.pid, signal.SIGKILL)
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(StarterGoneError):
                    await started(starter, "leave", "0")
        assert [each["event"] for each in logs] == ["starter_gone"]
        # What it forked goes on, and can be ended; how it ended nobody tells.
        assert process.poll() is None
        process.kill()
        assert await process.wait() is None

    told(story)


def test_a_starter_that_stands_still_is_given_up(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starters, "_ANSWER_SECONDS", 0.2)

    async def story() -> None:
        os.kill(starter.pid, signal.SIGSTOP)
        with pytest.raises(StarterGoneError):
            await started(starter, "leave", "0")

    told(story)
    assert os.waitid(os.P_PID, starter.pid, os.WEXITED | os.WNOWAIT) is not None, "it forks nothing later"


def test_a_starter_that_stands_still_does_not_hold_up_the_end(starter: Starter) -> None:
    """The fixture closes it."""
    os.kill(starter.pid, signal.SIGSTOP)


def test_a_process_that_is_told_of_too_late_is_ended(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has been started in its place by then, with the same socket."""
    monkeypatch.setattr(starters, "_ANSWER_SECONDS", 0.2)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def kill_late(_starter: Starter) -> None:
        answer = msgspec.msgpack.encode(starters.Forked(process.pid, 1))
        pidfd = os.pidfd_open(process.pid)
        socket.send_fds(theirs, [answer], [pidfd])
        os.close(pidfd)

    async def story() -> None:
        # Its starter never answers: nobody reads at the other end.
        silent = Starter(ours, starter.pid)
        monkeypatch.setattr(Starter, "_kill", kill_late)
        with pytest.raises(StarterGoneError):
            await silent.start("leave", "some leave", ["0"], [])

    with ours, theirs, process:
        told(story)
        monkeypatch.undo()
        assert process.wait(10) == -signal.SIGKILL


def test_what_nobody_can_be_told_of_does_not_begin(starter: Starter) -> None:
    mine, its = socket.socketpair()
    with mine, its:
        os.kill(starter.pid, signal.SIGSTOP)
        request = msgspec.msgpack.encode(starters.Start("report", "some report", []))
        pidfd = os.pidfd_open(os.getpid())
        socket.send_fds(starter._control, [request], [its.fileno(), pidfd])
        os.close(pidfd)
        its.close()
        starter._control.shutdown(socket.SHUT_RD)
        os.kill(starter.pid, signal.SIGCONT)
        mine.settimeout(10)
        assert mine.recv(1) == b""


def test_a_process_with_threads_has_no_starter() -> None:
    """A fork would copy whatever locks the others hold."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with open_starter("tests", ENTRIES):
            assert starters.current() is None
    finally:
        done.set()
        thread.join()


_SCRIPT = """
import os, sys, trio
from greenroom_cluster.runtime.starter import current, open_starter
from tests.cluster.supervision.test_starter import ENTRIES
async def main():
    process = await current().start("wait", "some wait", [], [])
    print(current().pid, process.pid, flush=True)
    await trio.sleep_forever()
with open_starter("script", ENTRIES):
    trio.run(main)
"""


def test_a_starter_ends_with_its_supervisor() -> None:
    with subprocess.Popen([sys.executable, "-c", _SCRIPT], cwd=ROOT, stdout=subprocess.PIPE) as script:
        assert script.stdout is not None
        starter_pid, forked = map(int, script.stdout.readline().split())
        ticks = starters_ticks(starter_pid)
        script.kill()
        script.wait()
        try:
            deadline = time.monotonic() + 5
            while is_alive(starter_pid, ticks):
                assert time.monotonic() < deadline, "the starter outlives its supervisor"
                os.sched_yield()
        finally:
            os.kill(forked, signal.SIGKILL)  # what is forked sees to its own end: see `exit_with_parent`


def starters_ticks(pid: int) -> int:
    from greenroom_cluster.runtime.processes import start_ticks

    return start_ticks(pid) or 0
