"""A file of batches that one process writes, one after the other; what may be believed, `batches` decides.

    magic      8 bytes, b"GREENLOG"
    format     2 bytes
    mark       8 bytes, random; each batch begins with it
    checksum   4 bytes, CRC-32 of all before it
    batches
    zeros

The file grows by zeros ahead of the batches: most syncs then overwrite what is there, and have no new length
to write as well. The zeros go when it is sealed, or stay, which is as good.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import MARK_BYTES, Batch, DamagedError, encode_batch, found_batches

FORMAT_VERSION = 1
AHEAD_BYTES = 256 << 10
_MAGIC = b"GREENLOG"
_HEADER = struct.Struct(">8sH8s")
_SUM = struct.Struct(">I")
HEADER_BYTES = _HEADER.size + _SUM.size


class Segment:
    """A new segment. One thread may append while another syncs; all methods block for the disk but `append`.

    A batch is in the file once it is appended, where it survives the end of this process, and on stable
    storage once a `sync` that was begun later has returned. An OSError of any method is final: whether a
    batch is there is unknown then, and stays so, because the kernel may call the next sync a success without
    having written the pages of this one (Rebello et al., ATC 2020).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = os.urandom(MARK_BYTES)
        # Nobody else may read it, not even before the mode is set.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.used_bytes = self.stored_bytes = 0
        """What batches and header take, and what the file does."""
        head = _HEADER.pack(_MAGIC, FORMAT_VERSION, self._mark)
        try:
            self._write(head + _SUM.pack(zlib.crc32(head)))
            # Before any batch, so that a bad header is damage once there are batches.
            os.fsync(self._file)
        except OSError:
            self.abandon()
            raise

    def append(self, batch: Batch) -> None:
        """Write a batch."""
        self._write(encode_batch(batch, self._mark))

    def append_all(self, batches: Iterable[Batch]) -> None:
        """Write batches in one go."""
        self._write(b"".join([encode_batch(batch, self._mark) for batch in batches]))

    def sync(self) -> None:
        """Wait until all batches are on stable storage."""
        os.fdatasync(self._file)

    def seal(self) -> None:
        """Cut off what was not used, and close the file for good; all batches are synced."""
        os.ftruncate(self._file, self.used_bytes)
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        begin = self.used_bytes
        end = begin + len(data)
        if end > self.stored_bytes:
            data += bytes(AHEAD_BYTES)
            self.stored_bytes = begin + len(data)
        written = os.pwrite(self._file, data, begin)
        while written < len(data):
            written += os.pwrite(self._file, data[written:], begin + written)
        self.used_bytes = end


def read_segment(path: Path) -> Iterator[Batch | None]:
    """Yield the batches of a segment, and None for what stands between or behind them and is none.

    Raises DamagedError if the file has lost its header, UsageError if a later release wrote it, OSError.
    """
    content = path.read_bytes()
    if len(content) >= HEADER_BYTES:
        magic, version, mark = _HEADER.unpack_from(content)
        (checksum,) = _SUM.unpack_from(content, _HEADER.size)
        if magic == _MAGIC and checksum == zlib.crc32(content[: _HEADER.size]):
            if version != FORMAT_VERSION:
                raise UsageError(
                    f"{path} has format {version}, this greenroom reads format {FORMAT_VERSION}: start the "
                    "greenroom version that wrote it, or choose an empty directory with --data-dir "
                    "(GREENROOM_DATA_DIR)"
                )
            yield from found_batches(content, HEADER_BYTES, mark)
            return
    # A crash may leave a file that has no header yet, and then it has nothing else.
    if content[HEADER_BYTES:].strip(b"\0"):
        raise DamagedError(f"the file {path.name} has lost its header")
