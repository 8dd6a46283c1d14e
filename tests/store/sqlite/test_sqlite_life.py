"""A SqliteStore across forks, threads, and the end of its process."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from greenroom import (
    OutcomeUnknownError,
    SqliteStore,
    UnavailableError,
)
from greenroom.sqlite import engine
from tests.store.client.store_stage import SECONDS, run
from tests.store.sqlite.sqlite_stage import Disk, rows, session


def test_parent_and_child_go_on_after_a_fork(
    journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    store = new_store()
    before, of_child, of_parent = session(), session(), session()
    run("asyncio", lambda: store.create(before))
    run("asyncio", lambda: store.get(before.session_id))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert run("asyncio", lambda: store.get(before.session_id)) is not None
            run("asyncio", lambda: store.create(of_child))
            run("asyncio", store.aclose)
            code = 0
        finally:
            os._exit(code)
    run("asyncio", lambda: store.create(of_parent))
    run("asyncio", store.aclose)
    assert os.waitpid(child, 0)[1] == 0
    for made in (before, of_child, of_parent):
        assert run("asyncio", lambda made=made: store.get(made.session_id)) is not None
    run("asyncio", store.aclose)


def test_no_connection_is_open_at_a_fork(journal: str, new_store: Callable[..., SqliteStore]) -> None:
    store = new_store()
    run("asyncio", lambda: store.create(session()))
    child = os.fork()
    if child == 0:
        opened = [str(each.resolve()) for each in Path("/proc/self/fd").iterdir()]
        os._exit(any("sessions.db" in path for path in opened))
    assert os.waitpid(child, 0)[1] == 0
    run("asyncio", store.aclose)


def test_a_child_that_was_forked_in_the_middle_refuses(
    wal: None, disk: Disk, new_store: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FORK_SECONDS", 0.1)
    store, made = new_store(deadline_seconds=0.3), session()
    run("asyncio", lambda: store.create(made))
    gate = disk.hold("COMMIT")
    with pytest.raises(OutcomeUnknownError):
        run("asyncio", lambda: store.create(session()))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(UnavailableError, match="when this process was forked"):
                run("asyncio", lambda: store.get(made.session_id))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    assert run("asyncio", lambda: store.get(made.session_id)) is not None
    run("asyncio", store.aclose)


EXIT = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from greenroom import SessionData, SqliteStore

store = SqliteStore(sys.argv[1])

async def main():
    expires = datetime.now(UTC) + timedelta(hours=1)
    await asyncio.gather(*(store.create(SessionData(session_id=f"s{n}", expires=expires)) for n in range(50)))
    asyncio.get_running_loop().create_task(store.get("s1"))

asyncio.run(main())
"""


def test_a_process_that_closes_nothing_ends_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    ended = subprocess.run(
        [sys.executable, "-c", EXIT, path], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")
    assert rows(path) == 50


def test_a_store_that_is_let_go_ends_its_threads(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    before = {*threading.enumerate()}

    async def work() -> None:
        store = new_store()
        await store.create(session())
        await store.get("nobody")

    run(library, work)
    gc.collect()
    end = time.monotonic() + SECONDS
    while {*threading.enumerate()} - before:
        assert time.monotonic() < end


def test_several_loops_in_threads_use_one_store(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    store, made = new_store(), session(data={})

    async def work(number: int) -> None:
        for turn in range(10):
            await store.patch(made.session_id, set={f"k{number}-{turn}": turn})

    run(library, lambda: store.create(made))
    threads = [threading.Thread(target=run, args=(library, partial(work, number))) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = run(library, lambda: store.get(made.session_id))
    assert len(found.data) == 40
    run(library, store.aclose)
