"""How simulated processes answer hellos: like this release, or like a former one."""

from typing import Any, Protocol

import msgspec

from greenroom import wire
from greenroom_cluster.links import handshake
from simulations.kernel.processes import Process


class FrameDecoder(Protocol):
    """Decodes the payload of a frame."""

    def decode(self, payload: bytes, /) -> Any:
        """Return its messages."""


class FormerDoor(handshake.Door, frozen=True):
    """The door of an actor of a release without features."""

    def welcome(self, clock_us: int = 0) -> wire.Hello:
        """Return the answer to a hello that is accepted."""
        return msgspec.structs.replace(super().welcome(clock_us), features=())


def door_of(process: Process) -> type[handshake.Door]:
    """Return the kind of door that a process has."""
    return FormerDoor if getattr(process, "former_release", False) else handshake.Door
