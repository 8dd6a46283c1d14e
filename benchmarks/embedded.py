"""Stores that need no server: `memory://` and a file, beside SQLite by itself on the same disk.

`python -m benchmarks.embedded` prints a table in Markdown: the lowest and the highest of three rounds, and
the ratios of each round. A write is acknowledged after its sync in both. `--journal` says which kind of file:
"own" is what the SQLite at hand gives a new file; "wal" is safe here, where one process alone writes.
"""

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.machine import load_average, machine
from greenroom import BaseSessionStore, MemoryStore, SessionData, SqliteStore, new_session_id
from greenroom.codec import encode_data
from greenroom.sqlite import files

SESSIONS = 2000
CALLERS = (1, 64)
TURNS = 10
DATA: dict[str, Any] = {"cart": {f"sku-{number}": number for number in range(20)}, "text": "x" * 130}

Act = Callable[[BaseSessionStore, str, int], Awaitable[object]]


async def filled(store: BaseSessionStore) -> list[str]:
    """Create the sessions; return their ids."""
    ids = [new_session_id() for _ in range(SESSIONS)]
    expires = datetime.now(UTC) + timedelta(hours=1)
    for first in range(0, SESSIONS, 100):
        await asyncio.gather(
            *(
                store.create(SessionData(session_id=each, expires=expires, data=DATA))
                for each in ids[first : first + 100]
            )
        )
    return ids


async def rate(store: BaseSessionStore, ids: list[str], act: Act, callers: int, seconds: float) -> float:
    """Return how many operations a second the callers do, each one after the other."""
    done = 0
    begun = time.perf_counter()
    end = begun + seconds

    async def call(number: int) -> None:
        nonlocal done
        index = number
        while time.perf_counter() < end:
            index = (index * 7919 + 13) % SESSIONS
            await act(store, ids[index], done)
            done += 1
            if not store.suspends:  # so that callers take turns, as they do where an operation waits
                await asyncio.sleep(0)

    await asyncio.gather(*(call(number) for number in range(callers)))
    return done / (time.perf_counter() - begun)


async def get(store: BaseSessionStore, session_id: str, _: int) -> object:
    """Read a session."""
    return await store.get(session_id)


async def patch(store: BaseSessionStore, session_id: str, value: int) -> object:
    """Change one value of a session."""
    return await store.patch(session_id, set={("cart", "sku-3"): value})


class Bare:
    """SQLite by itself: one row of a session's size is replaced by each transaction."""

    def __init__(self, path: Path, journal: str) -> None:
        self._size = len(encode_data(DATA))
        self._keys = [os.urandom(32) for _ in range(SESSIONS)]
        self._done = 0
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        self.database.execute("PRAGMA synchronous = full")
        self.database.execute("CREATE TABLE bare (key BLOB NOT NULL UNIQUE, data BLOB NOT NULL)")
        self.database.execute("BEGIN")
        rows = [(key, os.urandom(self._size)) for key in self._keys]
        self.database.executemany("INSERT INTO bare VALUES (?, ?)", rows)
        self.database.execute("COMMIT")

    async def rate(self, seconds: float) -> float:
        """Return how many transactions a second it commits; nothing else runs meanwhile."""
        execute, first, begun = self.database.execute, self._done, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            execute("BEGIN IMMEDIATE")
            key = self._keys[self._done % SESSIONS]
            execute("UPDATE bare SET data = ? WHERE key = ?", (os.urandom(self._size), key))
            execute("COMMIT")
            self._done += 1
        return (self._done - first) / (time.perf_counter() - begun)


async def one_round(folder: Path, journal: str, seconds: float) -> dict[str, float]:
    """Return all rates of one round. They take turns, since a disk and a shared machine change their pace."""
    bare = Bare(folder / "bare.db", "wal" if journal == "wal" else "persist")
    cells: dict[str, Callable[[float], Awaitable[float]]] = {"bare transactions": bare.rate}
    async with SqliteStore(folder / "sessions.db") as file, MemoryStore() as memory:
        for name, store in (("memory", memory), ("file", file)):
            ids = await filled(store)
            for act in (get, patch):
                for callers in CALLERS:
                    cells[f"{name}: {act.__name__}, {callers}"] = partial(rate, store, ids, act, callers)
        rates: dict[str, list[float]] = {name: [] for name in cells}
        for _ in range(TURNS):
            for name, cell in cells.items():
                rates[name].append(await cell(seconds / TURNS))
    with closing(bare.database):
        figures = {name: mean(each) for name, each in rates.items()}
    figures["ratio: patches of 64 to bare transactions"] = (
        figures["file: patch, 64"] / figures["bare transactions"]
    )
    figures["ratio: reads of 64, file to memory"] = figures["file: get, 64"] / figures["memory: get, 64"]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    parser.add_argument("--journal", choices=("own", "wal"), default="own")
    parser.add_argument("--folder", help="on the disk to measure; the default is that of temporary files")
    options = parser.parse_args()
    if options.journal == "wal":
        files.library_version = lambda: (3, 51, 3)
    journal = "wal" if files.wal_is_safe(files.library_version()) else "rollback"
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rounds.append(asyncio.run(one_round(Path(folder), journal, options.seconds)))
    about = machine()
    print(
        f"SQLite {sqlite3.sqlite_version} with {journal}, {about['python']}, {about['processor']}, "
        f"{about['cores']} cores, kernel {about['kernel']}, load {load_average():.1f}\n"
    )
    print("| a second, with so many callers | lowest | highest |\n|---|---:|---:|")
    for name in rounds[0]:
        each = sorted(figures[name] for figures in rounds)
        digits = 2 if name.startswith("ratio") else 0
        print(f"| {name} | {each[0]:,.{digits}f} | {each[-1]:,.{digits}f} |")


if __name__ == "__main__":
    main()
