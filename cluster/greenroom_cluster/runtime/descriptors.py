"""File descriptors: a process that runs out of them can neither accept nor reconnect."""

import os
import resource

# Reserved for links to peers and the coordinator, files and the event loop, not for accepted connections.
RESERVED_DESCRIPTORS = 64


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_within(limit: int) -> int:
    """Return `limit`, or less if the process cannot open that many files beside its reserve."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limit
    return max(1, min(limit, soft - RESERVED_DESCRIPTORS))


class SpareDescriptor:
    """A spare descriptor, with which to accept and refuse a connection when none is left."""

    def __init__(self) -> None:
        self._descriptor = -1
        self.take_back()

    def give_up(self) -> bool:
        """Free the descriptor; False if there is none in reserve."""
        if self._descriptor < 0:
            return False
        os.close(self._descriptor)
        self._descriptor = -1
        return True

    def take_back(self) -> bool:
        """Reserve one again; False if none is available now."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        return True
