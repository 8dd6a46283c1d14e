"""Batches of a log on disk: their bytes, and what may be believed of those found after a crash.

A batch is written and synced as a whole. Batches are numbered without a gap, and each names the newest batch
that was synced when it was written. So an end that was torn by a crash differs from damage: a batch that was
never synced was never acknowledged, and may be missing; one that a later batch or the note of the latest sync
calls synced must be there, whole.

    mark       8 bytes, those of the segment
    length     4 bytes, of the body
    number     8 bytes, from 1
    synced     8 bytes, the newest batch that was on stable storage
    body sum   4 bytes, CRC-32 of the body
    head sum   4 bytes, CRC-32 of all before it
    body

The mark is random, and each segment has its own. What follows a bad batch is found by it: nothing that
somebody stores in a session passes for a batch, nor does what a file held before.

Other logs end without a word at the first bad record: SQLite's, LevelDB's and RocksDB's in its default mode.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from greenroom.errors import GreenroomError

MARK_BYTES = 8
_HEAD = struct.Struct(">8sIQQI")
_SUM = struct.Struct(">I")
HEADER_BYTES = _HEAD.size + _SUM.size


class DamagedError(GreenroomError):
    """A directory lacks what was synced: it must not be believed, and its copy is fetched from others."""


class Batch(msgspec.Struct, frozen=True):
    """A batch as it was written; `body` is for the caller to decode."""

    number: int
    synced: int
    body: bytes


def encode_batch(batch: Batch, mark: bytes) -> bytes:
    """Return the bytes of a batch in the segment with that mark."""
    body = batch.body
    head = _HEAD.pack(mark, len(body), batch.number, batch.synced, zlib.crc32(body))
    return b"".join((head, _SUM.pack(zlib.crc32(head)), body))


def decode_batch(data: bytes, place: int, mark: bytes) -> Batch | None:
    """Return the batch at this place, or None if there is none that `encode_batch` returned."""
    begin = place + HEADER_BYTES
    if not data.startswith(mark, place) or len(data) < begin:
        return None
    _, length, number, synced, body_sum = _HEAD.unpack_from(data, place)
    (head_sum,) = _SUM.unpack_from(data, place + _HEAD.size)
    # The head first: what it says of the length is not believed before.
    if head_sum != zlib.crc32(data[place : place + _HEAD.size]):
        return None
    body = data[begin : begin + length]
    if len(body) < length or body_sum != zlib.crc32(body):
        return None
    return Batch(number, synced, body)


def found_batches(data: bytes, place: int, mark: bytes) -> Iterator[Batch | None]:
    """Yield the whole batches from a place on, and None for what stands between or behind them and is none.

    Zeros at the end are what nothing was written to yet.
    """
    while True:
        batch = decode_batch(data, place, mark)
        if batch is not None:
            yield batch
            place += HEADER_BYTES + len(batch.body)
            continue
        following = data.find(mark, place + 1)
        if following < 0:
            if data[place:].strip(b"\0"):
                yield None
            return
        yield None
        place = following


def believable(found: Iterable[Batch | None], first: int, noted: int) -> list[Batch]:
    """Return the batches that may be believed of those found, numbered from `first` on.

    `noted` is the newest batch that something else calls synced. What follows the first batch that is missing
    or bad is cut off if none of it can have been synced.

    Raises DamagedError if a batch that was synced is missing or bad.
    """
    whole: list[Batch] = []
    synced, ends = noted, False
    for batch in found:
        if batch is None:
            ends = True
            continue
        synced = max(synced, batch.synced)
        ends = ends or batch.number != first + len(whole)
        if not ends:
            whole.append(batch)
    last = first + len(whole) - 1
    if synced > last:
        raise DamagedError(f"batch {last + 1} is missing or damaged, and batches up to {synced} were synced")
    return whole


class Tail(NamedTuple):
    """The end of a log: `last` is the newest batch to be believed.

    Segments from index `unsettled` on are to be written anew, with these `batches` each, before anything of
    them is told or relied on: what the kernel shows of them need not be on the disk, and no later sync
    has to write it.
    """

    last: int
    unsettled: int
    batches: list[list[Batch]]


def read_tail(firsts: Sequence[int], found_in: Callable[[int], Iterable[Batch | None]], noted: int) -> Tail:
    """Return what need not have been synced, back to the first segment that is known to be.

    `firsts` are the numbers of the first batches of all segments, and `found_in` returns what one holds, by
    its index. `noted` is the newest batch that something else calls synced.

    Raises DamagedError if a batch that was synced is missing or bad.
    """
    index = len(firsts)
    if not index:
        return Tail(0, 0, [])
    read: list[Batch | None] = []
    synced = noted
    while index:
        index -= 1
        batches = list(found_in(index))
        synced = max([synced, *(batch.synced for batch in batches if batch is not None)])
        read[:0] = batches
        if firsts[index] <= synced + 1:
            break  # all segments before it were synced
    first = firsts[index]
    whole = believable(read, first, synced)
    bounds = [*firsts[index:], first + len(whole)]
    parts = [whole[max(begin - first, 0) : max(end - first, 0)] for begin, end in pairwise(bounds)]
    return Tail(first + len(whole) - 1, index, parts)


def sealed(found: Iterable[Batch | None], first: int, last: int) -> Iterator[Batch]:
    """Yield the batches from `first` to `last`, all of which were synced, one by one.

    Raises DamagedError at the first that is missing or bad, or if there are more.
    """
    expected = first
    for batch in found:
        if batch is None or not batch.number == expected <= last:
            break
        yield batch
        expected += 1
    else:
        if expected == last + 1:
            return
    raise DamagedError(f"batch {expected} is missing or damaged, and batches up to {last} were synced")
