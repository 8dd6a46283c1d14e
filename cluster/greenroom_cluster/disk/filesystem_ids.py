"""Which file system a directory lies on, by an id that outlives a boot.

What statvfs(2) calls the id of a file system is the number of its device on XFS and some others, and numbers
of devices are given out anew at each boot. There the kernel is asked for the id that is written on the disk.
"""

import fcntl
import os
from pathlib import Path

_GET_UUID = 0x80111500
"""FS_IOC_GETFSUUID, of Linux 6.9: a byte for the length, and 16 for the id."""
_GET_XFS_GEOMETRY = 0x80705864
"""XFS_IOC_FSGEOMETRY_V1, which is older: 112 bytes, with the id from byte 64 on."""
_UUIDS = ((_GET_UUID, 17, 1), (_GET_XFS_GEOMETRY, 112, 64))
_UUID_BYTES = 16


def filesystem_id(directory: Path, device: int) -> int:
    """Return the id of the file system of a directory, which is on that device; 0 if it has none.

    Raises OSError.
    """
    found = os.statvfs(directory).f_fsid
    return found if found != device else _written_id(directory)


def _written_id(directory: Path) -> int:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for request, size, begin in _UUIDS:
            try:
                answer = fcntl.ioctl(opened, request, bytes(size))
            except OSError:
                continue  # a file system or a kernel that does not know the question
            uuid = answer[begin : begin + _UUID_BYTES]
            # In 64 bits as statvfs has those of other file systems.
            return int.from_bytes(uuid[:8], "little") ^ int.from_bytes(uuid[8:], "little")
    finally:
        os.close(opened)
    return 0
