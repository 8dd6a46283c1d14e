"""What a synced batch costs in a segment of the log on disk, beside a bare file that held zeros before.

The bare file is the least that any engine can cost: one write and one fdatasync a batch. Both take turns,
batch by batch, so that other work of the machine and of its disk affects both.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from greenroom_cluster.disk.batches import HEADER_BYTES, Batch, encode_batch
from greenroom_cluster.disk.segment import Segment

SIZES_BYTES = (400, 3_200, 26_000)
"""A record of a session of 300 bytes; those of 8 and of 64 callers in one batch."""


class Row(msgspec.Struct, frozen=True):
    """The medians of one size, over all batches."""

    size_bytes: int
    segment_us: float
    bare_us: float
    segment_cpu_us: float
    bare_cpu_us: float

    @property
    def ratio(self) -> float:
        """Return how many times the bare file's time the segment takes."""
        return self.segment_us / self.bare_us


class _Bare:
    """A file that has its final size and its blocks before the first batch."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._file, bytes(size_bytes))
        os.fsync(self._file)
        os.lseek(self._file, 0, os.SEEK_SET)

    def append(self, _number: int, data: bytes) -> None:
        os.write(self._file, data)
        os.fdatasync(self._file)


def measure(directory: Path, size_bytes: int, batches: int) -> Row:
    """Write batches of this size in turn, and return what one took."""
    body = os.urandom(size_bytes)
    segment = Segment(directory / f"{size_bytes}.db", 1)
    bare = _Bare(directory / f"{size_bytes}.bare", (size_bytes + HEADER_BYTES) * batches)
    taken: dict[object, list[tuple[float, float]]] = {segment: [], bare: []}
    for number in range(1, batches + 1):
        data = encode_batch(Batch(number, number - 1, body))
        for each in (segment, bare) if number % 2 else (bare, segment):
            cpu, began = time.process_time(), time.perf_counter()
            each.append(number, data)
            taken[each].append((time.perf_counter() - began, time.process_time() - cpu))
    segment.seal()
    wall = {each: median(seconds for seconds, _ in rows) * 1e6 for each, rows in taken.items()}
    spent = {each: sum(seconds for _, seconds in rows) / batches * 1e6 for each, rows in taken.items()}
    return Row(size_bytes, wall[segment], wall[bare], spent[segment], spent[bare])


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
    print("size, bytes   segment, us   bare file, us   ratio   CPU, us   CPU bare, us")
    for row in rows:
        print(
            f"{row.size_bytes:11}   {row.segment_us:11.0f}   {row.bare_us:13.0f}   {row.ratio:5.2f}"
            f"   {row.segment_cpu_us:7.0f}   {row.bare_cpu_us:12.0f}"
        )


if __name__ == "__main__":
    main()
