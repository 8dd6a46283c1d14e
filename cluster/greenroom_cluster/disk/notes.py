"""What a log says of itself outside of its batches, and where from an opening knows what must be there.

    synced      the newest batch known to be on stable storage; a hint, itself never synced
    oldest      the batch that the log begins with, and the newest on stable storage when that was noted

The second is synced before anything is deleted. Snapshots of shards are deleted because later ones are on
stable storage. From then on the loss of such a later one is damage. Taken for an end that was torn, it would
leave a directory that seems whole, and has no copy of that shard.
"""

import struct
import zlib
from typing import NamedTuple

_NOTE = struct.Struct(">QI")
NOTE_BYTES = _NOTE.size


class Known(NamedTuple):
    """The batch that a log begins with, 0 if nobody knows, and the newest that is on stable storage."""

    first: int
    synced: int


def encode_note(number: int) -> bytes:
    """Return what says a number, or that it was torn."""
    return _NOTE.pack(number, zlib.crc32(struct.pack(">Q", number)))


def decode_note(note: bytes) -> int:
    """Return the number that a note says; 0 if that is nothing."""
    if len(note) < NOTE_BYTES:
        return 0
    number, checksum = _NOTE.unpack(note[:NOTE_BYTES])
    return int(number) if checksum == zlib.crc32(note[:8]) else 0


def encode_beginning(known: Known) -> bytes:
    """Return what the file `oldest` says."""
    return encode_note(known.first) + encode_note(known.synced)


def known_of(beginning: bytes, hint: int = 0) -> Known:
    """Return what is known of a log by its file `oldest`, and by what the file `synced` says."""
    return Known(decode_note(beginning), max(hint, decode_note(beginning[NOTE_BYTES:])))
