"""What an app is told when a session has ended, and by whom."""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec

from greenroom.errors import GreenroomError

EndReason: TypeAlias = Literal["logout", "logout_everywhere", "rotation", "expiry", "eviction", "unknown"]


class Ended(msgspec.Struct, frozen=True):
    """A session is over. `reason` says why.

    "logout" is a deletion, "logout_everywhere" one of all sessions of its user, "rotation" a new id in the
    place of this one, "expiry" the end of its time, "eviction" that a cluster had no room left. It is
    "unknown" if the session was gone when the store was asked: at the beginning, or after a connection or a
    primary was lost.
    """

    reason: EndReason


UNKNOWN = Ended("unknown")

Tell: TypeAlias = Callable[[Ended | GreenroomError], None]
"""What is called once, when a session has ended, or with an error if nothing will be told any more."""


class Watch(Protocol):
    """One caller of `watch`."""

    def stop(self) -> None:
        """Be told nothing any more. Harmless to repeat."""


class NoWatch:
    """That of a session that was gone already."""

    def stop(self) -> None:
        """Do nothing."""
