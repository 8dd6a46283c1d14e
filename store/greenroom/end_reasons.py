"""Why a command ends a session."""

from greenroom import wire
from greenroom.endings import Ended, EndReason

_BY_COMMAND: dict[type, EndReason] = {
    wire.Delete: "logout",
    wire.DeleteByHandle: "logout",
    wire.DeleteByUser: "logout_everywhere",
}


def end_of(command: object, digest: bytes) -> Ended:
    """Return what is told of a session with this digest that a command has removed.

    One that a command removes for any other reason was over by time, and in the way.
    """
    if type(command) is wire.Rotate and digest == command.digest:
        return Ended("rotation")
    return Ended(_BY_COMMAND.get(type(command), "expiry"))
