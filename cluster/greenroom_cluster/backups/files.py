"""A backup in a file: a heading, parts of shards, and an end that says what must have come before.

    magic      8 bytes, b"GRBACKUP"
    frames     each: length and CRC-32 of the payload, 4 bytes each, then the payload, a `Heading`, `Part` or
               `End` in msgpack

The file takes its name when it is complete. One without its end, or with a frame that is not as it was
written, is refused as a whole: half a backup would bring back a cart without its owner's other session.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.backups.new_file import NewFile
from greenroom_cluster.shard.state.records import StoredSession

FORMAT_VERSION = 1
_MAGIC = b"GRBACKUP"
_FRAME = struct.Struct(">II")
_FRAME_BYTES_MAX = 64 << 20


class Heading(msgspec.Struct, array_like=True, frozen=True, tag="heading"):
    """Of which cluster a backup is, and of when."""

    format: int
    cluster: str
    taken_us: int
    shards: int


class Part(msgspec.Struct, array_like=True, frozen=True, tag="part"):
    """Some sessions of a shard, as they stood after the record `sequence` of `epoch`."""

    shard: int
    epoch: int
    sequence: int
    sessions: tuple[StoredSession, ...]


class End(msgspec.Struct, array_like=True, frozen=True, tag="end"):
    """How many shards and sessions the backup has."""

    shards: int
    sessions: int


_Payload: TypeAlias = Heading | Part | End
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Payload)


class BackupWriter:
    """Writes a backup into a `NewFile`; without `finish` there is none.

    Raises what `NewFile` does.
    """

    def __init__(self, path: Path, heading: Heading) -> None:
        self._shards: set[int] = set()
        self.sessions = 0
        self.written_bytes = 0
        self._file = NewFile(path)
        with ExitStack() as opened:
            opened.enter_context(self._file)
            self._write(_MAGIC)
            self._put(heading)
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, part: Part) -> None:
        """Write a part of a shard."""
        self._shards.add(part.shard)
        self.sessions += len(part.sessions)
        self._put(part)

    def finish(self) -> None:
        """Write the end, and give the file its name; it is on disk for good when this returns."""
        self._put(End(len(self._shards), self.sessions))
        self._file.finish()

    def _put(self, payload: _Payload) -> None:
        encoded = _encoder.encode(payload)
        self._write(_FRAME.pack(len(encoded), zlib.crc32(encoded)) + encoded)

    def _write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._file.write(data)


class Backup:
    """A backup that was read once from beginning to end and found whole.

    Raises UsageError if the file cannot be read or is not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        heading: Heading | None = None
        end: End | None = None
        shards, sessions = set(), 0
        for payload in self._payloads():
            if heading is None:
                if not isinstance(payload, Heading):
                    raise self._damaged("it has no heading")
                heading = payload
                self._check_format(heading)
            elif end is not None:
                raise self._damaged("something follows its end")
            elif isinstance(payload, Part):
                shards.add(payload.shard)
                sessions += len(payload.sessions)
            elif isinstance(payload, End):
                end = payload
        if heading is None or end is None:
            raise self._damaged("it ends early")
        if (end.shards, end.sessions) != (len(shards), sessions) or end.shards != heading.shards:
            raise self._damaged("parts of it are missing")
        self.heading = heading
        self.sessions = sessions

    def stored(self) -> Iterator[StoredSession]:
        """Yield every session. Raises UsageError if the file has changed since it was opened."""
        for payload in self._payloads():
            if isinstance(payload, Part):
                yield from payload.sessions

    def _payloads(self) -> Iterator[_Payload]:
        try:
            with self._opened() as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise UsageError(f"{self._path} is no backup of greenroom")
                while header := file.read(_FRAME.size):
                    if len(header) < _FRAME.size:
                        raise self._damaged("it ends early")
                    length, checksum = _FRAME.unpack(header)
                    payload = file.read(length) if length <= _FRAME_BYTES_MAX else b""
                    if len(payload) != length:
                        raise self._damaged("it ends early")
                    if zlib.crc32(payload) != checksum:
                        raise self._damaged("a checksum is wrong")
                    yield self._decoded(payload)
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror}") from error

    def _opened(self) -> BinaryIO:
        # Opened without waiting for someone who writes into a pipe.
        file = os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        raise UsageError(
            f"{self._path} is not a file on a disk, and a backup is read more than once: name such a file"
        )

    def _decoded(self, payload: bytes) -> _Payload:
        try:
            return _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise self._damaged("a part of it is not what a backup holds") from error

    def _check_format(self, heading: Heading) -> None:
        if heading.format != FORMAT_VERSION:
            raise UsageError(
                f"{self._path} has format {heading.format}, this greenroom reads format {FORMAT_VERSION}: "
                "restore it with the version that wrote it"
            )

    def _damaged(self, what: str) -> UsageError:
        return UsageError(f"the backup {self._path} is damaged: {what}. Nothing is restored from it")
