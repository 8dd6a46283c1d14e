"""Batches of a log on disk: their bytes, and what may be believed of those found after a crash.

A batch is written and synced as a whole. Batches are numbered without a gap, and each names the newest batch
that was synced when it was written. So an end that was torn by a crash differs from damage: a batch that was
never synced was never acknowledged, and may be missing; one that a later batch or the note of the latest sync
calls synced must be there, whole.

    magic      4 bytes, b"GRB1"
    number     8 bytes, from 1
    synced     8 bytes, the newest batch that was on stable storage
    checksum   4 bytes, CRC-32 of number, synced and body
    body

No engine tells the two apart by itself: SQLite's write-ahead log, LevelDB and RocksDB (in its default mode)
end without a word at the first bad record.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from greenroom.errors import GreenroomError

_MAGIC = b"GRB1"
_HEADER = struct.Struct(">4sQQI")
_NUMBERS = struct.Struct(">QQ")
HEADER_BYTES = _HEADER.size


class DamagedError(GreenroomError):
    """A directory lacks what was synced: it must not be believed, and its copy is fetched from others."""


class Batch(msgspec.Struct, frozen=True):
    """A batch as it was written; `body` is for the caller to decode."""

    number: int
    synced: int
    body: bytes


def encode_batch(batch: Batch) -> bytes:
    """Return the bytes of a batch, header first."""
    return _HEADER.pack(_MAGIC, batch.number, batch.synced, _checksum(batch)) + batch.body


def decode_batch(data: bytes) -> Batch | None:
    """Return the batch in these bytes, or None if they are not what `encode_batch` returned."""
    if len(data) < HEADER_BYTES:
        return None
    magic, number, synced, checksum = _HEADER.unpack_from(data)
    batch = Batch(number, synced, data[HEADER_BYTES:])
    if magic != _MAGIC or checksum != _checksum(batch):
        return None
    return batch


def believable(found: Iterable[tuple[int, bytes]], first: int, noted: int) -> list[Batch]:
    """Return the batches that may be believed of those found, numbered from `first` on.

    `found` are (number, bytes) by number; `noted` is the newest batch that something else calls synced. What
    follows the first batch that is missing or bad is cut off if none of it can have been synced.

    Raises DamagedError if a batch that was synced is missing or bad.
    """
    whole: list[Batch] = []
    synced, ends = noted, False
    for number, data in found:
        batch = decode_batch(data)
        if batch is not None and batch.number == number:
            synced = max(synced, batch.synced)
            ends = ends or number != first + len(whole)
            if not ends:
                whole.append(batch)
        else:
            ends = True
    last = first + len(whole) - 1
    if synced > last:
        raise DamagedError(f"batch {last + 1} is missing or damaged, and batches up to {synced} were synced")
    return whole


def sealed(found: Iterable[tuple[int, bytes]], first: int, last: int) -> Iterator[Batch]:
    """Yield the batches from `first` to `last`, all of which were synced, one by one.

    Raises DamagedError at the first that is missing or bad, or if there are more.
    """
    expected = first
    for number, data in found:
        batch = decode_batch(data)
        if batch is None or not batch.number == number == expected <= last:
            break
        yield batch
        expected += 1
    else:
        if expected == last + 1:
            return
    raise DamagedError(f"batch {expected} is missing or damaged, and batches up to {last} were synced")


def _checksum(batch: Batch) -> int:
    return zlib.crc32(batch.body, zlib.crc32(_NUMBERS.pack(batch.number, batch.synced)))
