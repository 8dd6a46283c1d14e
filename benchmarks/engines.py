"""What a synced batch costs in a segment of the log on disk, in SQLite, and in a bare file of zeros.

The bare file is the least that any engine can cost: one write and one fdatasync a batch. All take turns,
batch by batch, so that other work of the machine and of its disk affects all.
"""

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Protocol

import msgspec

from greenroom_cluster.disk.batches import HEADER_BYTES, MARK_BYTES, Batch, encode_batch
from greenroom_cluster.disk.segment import Segment

SIZES_BYTES = (400, 3_200, 26_000)
"""A record of a session of 300 bytes; those of 8 and of 64 callers in one batch."""


class Row(msgspec.Struct, frozen=True):
    """The medians of one size, over all batches."""

    size_bytes: int
    segment_us: float
    sqlite_us: float
    bare_us: float
    segment_cpu_us: float
    sqlite_cpu_us: float
    bare_cpu_us: float

    @property
    def ratio(self) -> float:
        """Return how many times the bare file's time the segment takes."""
        return self.segment_us / self.bare_us


class _Engine(Protocol):
    def append(self, batch: Batch) -> None:
        """Write a batch, and wait until it is on stable storage."""


class _Log:
    """The log on disk as an actor writes it."""

    def __init__(self, path: Path) -> None:
        self._segment = Segment(path)

    def append(self, batch: Batch) -> None:
        self._segment.append(batch)
        self._segment.sync()

    def close(self) -> None:
        self._segment.seal()


class _Database:
    """The same log as a table, a row a batch, as SQLite keeps it best: a commit is one append to its log."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._mark = bytes(MARK_BYTES)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA wal_autocheckpoint = 0",
            "CREATE TABLE batch (number INTEGER PRIMARY KEY, data BLOB NOT NULL)",
        ):
            self._connection.execute(statement)

    def append(self, batch: Batch) -> None:
        data = encode_batch(batch, self._mark)
        self._connection.execute("INSERT INTO batch VALUES (?, ?)", (batch.number, data))

    def close(self) -> None:
        self._connection.close()


class _Bare:
    """A file that has its final size and its blocks before the first batch."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._file, bytes(size_bytes))
        os.fsync(self._file)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._mark = bytes(MARK_BYTES)

    def append(self, batch: Batch) -> None:
        os.write(self._file, encode_batch(batch, self._mark))
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


def measure(directory: Path, size_bytes: int, batches: int) -> Row:
    """Write batches of this size in turn, and return what one took."""
    body = os.urandom(size_bytes)
    log = _Log(directory / f"{size_bytes}.log")
    database = _Database(directory / f"{size_bytes}.db")
    bare = _Bare(directory / f"{size_bytes}.bare", (size_bytes + HEADER_BYTES) * batches)
    engines: tuple[_Engine, ...] = (log, database, bare)
    taken: dict[_Engine, list[tuple[float, float]]] = {engine: [] for engine in engines}
    for number in range(1, batches + 1):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            cpu, began = time.process_time(), time.perf_counter()
            engine.append(Batch(number, number - 1, body))
            taken[engine].append((time.perf_counter() - began, time.process_time() - cpu))
    for closed in (log, database, bare):
        closed.close()
    wall = [median(seconds for seconds, _ in rows) * 1e6 for rows in taken.values()]
    spent = [sum(seconds for _, seconds in rows) / batches * 1e6 for rows in taken.values()]
    return Row(size_bytes, *wall, *spent)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description="what a synced batch costs")
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; a temporary one without")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        rows = [measure(Path(directory), size_bytes, options.batches) for size_bytes in SIZES_BYTES]
    if options.json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    print("size, bytes   segment, us   SQLite, us   bare, us   CPU, us   CPU SQLite, us   CPU bare, us")
    for row in rows:
        print(
            f"{row.size_bytes:11}   {row.segment_us:11.0f}   {row.sqlite_us:10.0f}   {row.bare_us:8.0f}"
            f"   {row.segment_cpu_us:7.0f}   {row.sqlite_cpu_us:14.0f}   {row.bare_cpu_us:12.0f}"
        )


if __name__ == "__main__":
    main()
