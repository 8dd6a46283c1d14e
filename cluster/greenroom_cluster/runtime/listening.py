"""The sockets that this process listens on, from the kernel, and who can connect to them."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from greenroom.private_files import is_private

_DESCRIPTORS = Path("/proc/self/fd")


class Listener(msgspec.Struct, frozen=True):
    """A socket that accepts connections. It is `exposed` if other users of the host can connect to it."""

    inode: int
    place: str
    exposed: bool


Listeners: TypeAlias = frozenset[Listener]


def listeners() -> Listeners:
    """Return every socket that this process listens on."""
    found = set()
    for entry in _DESCRIPTORS.iterdir():
        # The descriptor by which this folder is read is gone by now.
        with suppress(OSError):
            held = os.dup(int(entry.name))
            try:
                if stat.S_ISSOCK(os.fstat(held).st_mode):
                    found |= _listener(held)
            finally:
                os.close(held)
    return frozenset(found)


def _listener(descriptor: int) -> set[Listener]:
    inode = os.fstat(descriptor).st_ino
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return set()
        address = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            return {Listener(inode, f"the socket {address!r}", not _is_private(address))}
        return {Listener(inode, f"{address[0]} port {address[1]}", exposed=True)}


def _is_private(address: str | bytes) -> bool:
    """Return whether a Unix socket lies in a folder that only this user may enter.

    An abstract name lies in none, and its own permissions count only where the folder's do not suffice.
    """
    path = Path(os.fsdecode(address))
    if not path.is_absolute():
        return False
    folder = path.parent.stat()
    return folder.st_uid == os.geteuid() and is_private(folder.st_mode)
