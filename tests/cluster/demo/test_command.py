"""`greenroom demo` passes over a real cluster, prints one object last, and leaves no process behind."""

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom_cluster.demo import command
from greenroom_cluster.runtime.processes import descendants_of, is_alive, start_ticks

DEMO = (sys.executable, "-m", "greenroom_cluster", "demo", "--json", "--seconds", "8", "--browsers", "6")


class RunningDemo:
    """A demo in a process of its own, and every process that was seen below it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.stdout = b""
        self.stderr = b""
        self.family: dict[int, int] = {}

    async def read_stdout(self) -> None:
        async for chunk in self.process.stdout:
            self.stdout += chunk

    async def watch_stderr(self, on_line: Callable[[bytes], Awaitable[None]]) -> None:
        """Note the process tree at every step that the demo tells of, and call `on_line`."""
        async for chunk in self.process.stderr:
            self.stderr += chunk
            for pid in descendants_of(self.process.pid):
                ticks = start_ticks(pid)
                if ticks is not None:
                    self.family[pid] = ticks
            await on_line(chunk)

    def alive(self) -> list[int]:
        return [pid for pid, ticks in self.family.items() if is_alive(pid, ticks)]


async def run_demo(on_line: Callable[[RunningDemo, bytes], Awaitable[None]], *options: str) -> RunningDemo:
    command = [*DEMO, *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    demo = RunningDemo(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(demo.read_stdout)
            nursery.start_soon(demo.watch_stderr, lambda line: on_line(demo, line))
            await process.wait()
    finally:
        process.kill()
    return demo


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def nothing(_demo: RunningDemo, _line: bytes) -> None:
    pass


@pytest.mark.trio
@pytest.mark.system
async def test_the_demo_loses_nothing_and_leaves_nothing_behind() -> None:
    demo = await run_demo(nothing)
    assert demo.process.returncode == 0, demo.stderr.decode()
    (line,) = demo.stdout.decode().splitlines()
    result = json.loads(line)
    assert (result["lost_writes"], result["wrong_carts"], result["resurrected"]) == (0, 0, 0)
    assert result["user_errors"] == 0, result["problems"]
    assert result["confirmed_writes"] > 50
    assert 0 < result["recover_actor_seconds"] < 5
    assert 0 < result["recover_node_seconds"] < 8
    assert len(demo.family) >= 3 + 6 + 1 + 2
    assert demo.alive() == []


@pytest.mark.trio
@pytest.mark.system
async def test_a_demo_over_tls_loses_nothing_and_recovers_as_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    demo = await run_demo(nothing, "--tls")
    assert demo.process.returncode == 0, demo.stderr.decode()
    assert b", with TLS" in demo.stderr
    result = json.loads(demo.stdout)
    assert result["tls"] is True
    assert (result["lost_writes"], result["wrong_carts"], result["resurrected"]) == (0, 0, 0)
    assert (result["stale_reads"], result["user_errors"]) == (0, 0), result["problems"]
    assert result["confirmed_writes"] > 50
    assert 0 < result["recover_actor_seconds"] < 5
    assert 0 < result["recover_node_seconds"] < 8
    assert demo.alive() == []
    assert files_in(tmp_path) == [], "no key is left"


@pytest.mark.trio
@pytest.mark.system
@pytest.mark.timeout(400)
async def test_a_durable_demo_loses_nothing_when_all_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    demo = await run_demo(nothing, "--durability", "fsync")
    assert demo.process.returncode == 0, demo.stderr.decode()
    result = json.loads(demo.stdout)
    assert (result["lost_writes"], result["wrong_carts"], result["resurrected"]) == (0, 0, 0)
    assert result["confirmed_writes"] > 50
    # Supervisors and coordinator have started again, so there was a time without any of them.
    assert 0 < result["recover_all_seconds"] < 60
    assert len(demo.family) >= 2 * (3 + 6 + 1) + 2
    assert demo.alive() == []
    assert files_in(tmp_path) == [], "what it kept on disk is gone"


@pytest.mark.trio
@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_stops_everything(number: signal.Signals) -> None:
    async def interrupt(demo: RunningDemo, line: bytes) -> None:
        if b"browsers shop" in line:
            demo.process.send_signal(number)

    demo = await run_demo(interrupt)
    assert demo.process.returncode == command.EXIT_INTERRUPTED, demo.stderr.decode()
    assert b"Interrupted" in demo.stderr
    assert demo.stdout == b""
    assert len(demo.family) >= 3 + 6 + 1 + 2
    assert demo.alive() == []


@pytest.mark.trio
@pytest.mark.system
async def test_a_killed_demo_takes_everything_with_it() -> None:
    async def kill(demo: RunningDemo, line: bytes) -> None:
        if b"browsers shop" in line:
            demo.process.kill()

    demo = await run_demo(kill)
    assert demo.process.returncode == -signal.SIGKILL
    assert len(demo.family) >= 3 + 6 + 1 + 2
    with trio.fail_after(2):
        while demo.alive():
            await trio.lowlevel.checkpoint()


def test_without_its_extra_the_demo_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def without_starlette(name: str, package: str | None = None) -> Any:
        return None if name == "starlette" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_starlette)
    assert command.run_demo() == command.EXIT_FAILED
    told = capsys.readouterr().err
    assert "starlette" in told
    assert "its extra `demo`" in " ".join(told.split())


@pytest.mark.parametrize(
    ("option", "value"),
    [("seconds", 1.0), ("seconds", 1e9), ("browsers", 0), ("browsers", 10**6), ("durability", "always")],
)
def test_what_cannot_be_is_refused_by_the_option_s_name(
    option: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run_demo(**{option: value}) == command.EXIT_FAILED
    assert f"--{option} must be" in capsys.readouterr().err
