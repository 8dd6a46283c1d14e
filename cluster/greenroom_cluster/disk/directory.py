"""The directory of one actor slot: who it is, where it lies, and which incarnations opened it.

    lock        held with flock(2) while an actor uses the directory
    identity    magic, format, CRC-32 of the rest, then the identity in msgpack
    damaged/    what was here before damage was found; an operator removes it

The log beside them is the `Journal`'s. An actor that holds the lock knows that all which opened the directory
before it are dead, unless this is a copy: the lock of a copy proves nothing. So a directory that is not where
it was last used is refused, until an operator says that no process uses the original.
"""

import fcntl
import os
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.filesystem_ids import filesystem_id
from greenroom_cluster.lasting_files import lock_directory, replace_file, sync_directory

FORMAT_VERSION = 1
INCARNATIONS_KEPT = 16
ASIDE = "damaged"
_MAGIC = b"GREENDIR"
_HEADER = struct.Struct(">8sHI")
_POLL_SECONDS = 0.05
_MACHINE = Path("/etc/machine-id")
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_encoder = msgspec.msgpack.Encoder()


class Place(msgspec.Struct, frozen=True):
    """Where a directory lies. `machine` is empty where hosts have no machine-id.

    The number of a device holds for one boot; the id of a file system outlives it, and is 0 if there is none.
    One that is the number of the device, as this was written before, says no more than that.
    """

    machine: str
    boot: str
    device: int
    filesystem: int
    inode: int

    @classmethod
    def of(cls, directory: Path) -> "Place":
        """Return where a directory lies now. Raises OSError."""
        found = directory.stat()
        filesystem = filesystem_id(directory, found.st_dev)
        return cls(_line(_MACHINE), _line(_BOOT), found.st_dev, filesystem, found.st_ino)

    def moved_from(self, former: "Place") -> str:
        """Return what shows that this is not the directory that was used there; empty if nothing does."""
        if self.machine != former.machine:
            return "it was last used on another machine"
        if self.inode != former.inode:
            return "it was last used as another directory"
        boot_alike = self.boot == former.boot
        known = all(each.filesystem not in {0, each.device} for each in (self, former))
        same = self.filesystem == former.filesystem if known else self.device == former.device
        if not same or (boot_alike and self.device != former.device):
            return "it was last used on another file system"
        return ""


class Identity(msgspec.Struct, frozen=True):
    """Who a directory is: `directory` is 16 random bytes made with it, `incarnations` opened it last."""

    directory: bytes
    cluster: str
    place: Place
    incarnations: tuple[bytes, ...] = ()


_decoder = msgspec.msgpack.Decoder(Identity)


class Directory:
    """A directory, locked for this process while open; it is made with mode 0700 if it is not there.

    Raises UsageError if another process holds it and does not end in time, or it cannot be used.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0.0) -> None:
        self.path = path
        self._lock = _locked(path, time.monotonic() + wait_seconds)

    def close(self) -> None:
        """Give up the lock; closing twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def enter(self, cluster: str, incarnation: bytes) -> Identity:
        """Note, lastingly, that this incarnation opens the directory, and return who that is.

        Raises UsageError if it was moved or copied, or belongs to another cluster, DamagedError if it does
        not say who it is though it has a log, and OSError if it cannot be written.
        """
        known = read_identity(self.path) or Identity(os.urandom(16), cluster, Place.of(self.path))
        known = entered(known, Place.of(self.path), cluster, incarnation, self.path)
        _write_identity(self.path, known)
        return known

    def adopt(self) -> Identity:
        """Have the directory count where it lies now, as an operator says that nothing uses the original.

        Raises UsageError if it has no identity, DamagedError and OSError as `enter` does.
        """
        known = read_identity(self.path)
        if known is None:
            raise UsageError(
                f"{self.path} is no directory of an actor: name one that holds the file `identity`, such as "
                "DATA_DIR/actors/0"
            )
        known = msgspec.structs.replace(known, place=Place.of(self.path))
        _write_identity(self.path, known)
        return known

    def set_aside(self) -> Path:
        """Move all that is in the directory to `damaged` in it, and return that. Raises OSError.

        Raises UsageError if something was moved there before: a disk that damages twice is no good.
        """
        aside = self.path / ASIDE
        if aside.exists():
            raise UsageError(
                f"the directory {self.path} is damaged, and {aside} holds what was damaged there before: "
                "replace the disk, or remove that to start with an empty directory"
            )
        begun = self.path / "damaged.tmp"
        begun.mkdir(mode=0o700, exist_ok=True)
        # First of all the identity: if a crash leaves the rest, it is a log without one, which is damage too.
        if (self.path / "identity").exists():
            (self.path / "identity").rename(begun / "identity")
        for each in list(self.path.iterdir()):
            if each.name not in {"lock", begun.name}:
                each.rename(begun / each.name)
        sync_directory(begun)
        begun.rename(aside)
        sync_directory(self.path)
        return aside


def entered(known: Identity, place: Place, cluster: str, incarnation: bytes, path: Path) -> Identity:
    """Return what the directory at `path` is once an incarnation has opened it, where it lies now.

    Raises UsageError if it was moved or copied, or belongs to another cluster.
    """
    moved = place.moved_from(known.place)
    if moved:
        raise UsageError(
            f"the directory {path} was moved or copied here: {moved}. If no process uses the "
            f"original any more, say so with `greenroom adopt-directory {path}` (its --data-dir names all of "
            "the node's); else choose an empty directory with --data-dir (GREENROOM_DATA_DIR)"
        )
    if known.cluster != cluster:
        raise UsageError(
            f"the directory {path} is of the cluster {known.cluster!r}, and this one is "
            f"{cluster!r}: name the other with --cluster (GREENROOM_CLUSTER), or choose an empty "
            "directory with --data-dir (GREENROOM_DATA_DIR)"
        )
    incarnations = (*known.incarnations, incarnation)[-INCARNATIONS_KEPT:]
    return msgspec.structs.replace(known, place=place, incarnations=incarnations)


def read_identity(directory: Path) -> Identity | None:
    """Return who a directory is; None if it is empty.

    Raises DamagedError if that is not to be read, UsageError if it is another user's or of a later release.
    """
    try:
        content = (directory / "identity").read_bytes()
    except FileNotFoundError:
        if _has_log(directory):
            raise DamagedError("the file `identity` is missing") from None
        return None
    except PermissionError as error:
        raise UsageError(
            f"{directory / 'identity'} cannot be read ({error.strerror}): run this as its owner"
        ) from error
    except OSError as error:
        raise DamagedError(f"the file `identity` cannot be read: {error.strerror}") from error
    if len(content) >= _HEADER.size:
        magic, version, checksum = _HEADER.unpack_from(content)
        payload = content[_HEADER.size :]
        if magic == _MAGIC and checksum == zlib.crc32(payload):
            if version != FORMAT_VERSION:
                raise UsageError(
                    f"the directory {directory} has format {version}, this greenroom reads format "
                    f"{FORMAT_VERSION}: start the greenroom version that wrote it, or choose an empty "
                    "directory with --data-dir (GREENROOM_DATA_DIR)"
                )
            with suppress(msgspec.MsgspecError):
                return _decoder.decode(payload)
    raise DamagedError("the file `identity` is damaged")


def is_kept(directory: Path) -> bool:
    """Whether an actor kept something here: an identity, or a log that lost its own. Raises OSError."""
    return (directory / "identity").exists() or _has_log(directory)


def is_locked(directory: Path) -> bool:
    """Whether a process uses the directory now. Raises OSError."""
    lock = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _write_identity(directory: Path, identity: Identity) -> None:
    payload = _encoder.encode(identity)
    replace_file(directory / "identity", _HEADER.pack(_MAGIC, FORMAT_VERSION, zlib.crc32(payload)) + payload)


def _locked(directory: Path, deadline: float) -> int:
    """Return a locked file in the directory."""
    while True:
        try:
            return lock_directory(directory)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            raise UsageError(
                f"another process uses the directory {directory}: stop it, or choose another (--data-dir or "
                "GREENROOM_DATA_DIR of a node)"
            ) from error
        except OSError as error:
            raise UsageError(
                f"the directory {directory} cannot be used ({error.strerror}): make it a directory that this "
                "user may write to, or choose another with --data-dir (GREENROOM_DATA_DIR)"
            ) from error


def _has_log(directory: Path) -> bool:
    return any(directory.glob("log-*"))


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
