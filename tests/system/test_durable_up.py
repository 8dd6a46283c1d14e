"""`greenroom up --durability`: sessions stay on disk over an orderly end, and are never passed over."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from greenroom import ClusterStore, new_session_id
from greenroom_cluster.runtime.ports import free_port
from tests.system.stage import session, tree

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(240)]

COMMAND = [sys.executable, "-m", "greenroom_cluster"]
SIZE = ("--nodes", "2", "--actors", "1", "--shards", "8")


class Up:
    """Runs of `greenroom up` on one directory and one port."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._port = free_port()
        self.stderr = b""

    def store(self) -> ClusterStore:
        return ClusterStore(f"127.0.0.1:{self._port}", deadline_seconds=10)

    def _command(self, mode: str, *more: str) -> list[str]:
        where = ("--listen", f"127.0.0.1:{self._port}", "--data-dir", str(self.data))
        return [*COMMAND, "up", *SIZE, *where, "--durability", mode, *more]

    @asynccontextmanager
    async def run(self, mode: str) -> AsyncIterator[trio.Process]:
        """Run it around the body; end it by SIGINT."""
        process = await trio.lowlevel.open_process(
            self._command(mode), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with trio.fail_after(60):
                assert b"ready in" in await process.stdout.receive_some()
            yield process
            process.send_signal(signal.SIGINT)
            with trio.fail_after(60):
                self.stderr = b"".join([chunk async for chunk in process.stderr])
                assert await process.wait() == 0
        finally:
            if process.poll() is None:
                for each in tree(process.pid):
                    each.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def refused(self, mode: str, *more: str) -> str:
        """Run it where it must refuse; return what it says."""
        found = await trio.run_process(
            self._command(mode, *more), capture_stdout=True, capture_stderr=True, check=False
        )
        assert found.returncode == 2, found.stderr
        return found.stderr.decode()


@pytest.mark.parametrize("mode", ["interval", "fsync"])
async def test_sessions_stay_on_disk_over_an_orderly_end(mode: str, tmp_path: Path) -> None:
    up = Up(tmp_path)
    ids = [new_session_id() for _ in range(40)]
    async with up.run(mode), up.store() as store:
        for number, session_id in enumerate(ids):
            await store.create(session(session_id, number=number))
        for session_id in ids[:10]:
            await store.delete(session_id)
    assert f"The sessions stay on disk in {up.data}".encode() in up.stderr
    assert not list(up.data.glob("sessions.*")), "no last backup is needed"
    for _ in range(2):
        async with up.run(mode), up.store() as store:
            for number, session_id in enumerate(ids):
                found = await store.get(session_id)
                if number < 10:
                    assert found is None, "who has logged out stays logged out"
                else:
                    assert found is not None
                    assert found.data == {"number": number}
    refused = await up.refused("none")
    assert "holds sessions of a run with --durability" in refused
    assert os.fspath(up.data) in refused


async def test_a_directory_that_no_start_can_use_is_refused_at_once(tmp_path: Path) -> None:
    up = Up(tmp_path)
    async with up.run("fsync"):
        pass
    assert "--shards (GREENROOM_SHARDS) is 16" in await up.refused("fsync", "--shards", "16")
    for name in ("marks.bin", "map.bin"):
        (up.data / name).write_bytes(b"?")
        refused = await up.refused("fsync")
        assert name in refused
        assert refused.count("damaged") == 1, "it is told once"
        assert "Traceback" not in refused


async def test_sessions_kept_by_a_run_without_durability_come_along(tmp_path: Path) -> None:
    up = Up(tmp_path)
    session_id = new_session_id()
    async with up.run("none"), up.store() as store:
        await store.create(session(session_id))
    assert (up.data / "sessions.backup").exists()
    for _ in range(2):
        async with up.run("fsync"), up.store() as store:
            assert await store.get(session_id) is not None
    assert not list(up.data.glob("sessions.*"))
