"""Which parts of the dashboard are sent to a viewer, and in what form: events that a server sends.

Each edition numbers the parts that it changed, so a viewer who has an edition is sent what came after it,
however much it missed: nothing is kept for one that reads slowly.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

RETRY_MS = 2000
"""How long a browser waits before it connects again."""

_encode = msgspec.json.encode


class Editions:
    """The parts as they are, and since which edition each is so."""

    def __init__(self) -> None:
        self.number = 0
        self._parts: dict[str, tuple[bytes, int]] = {}

    def publish(self, parts: Mapping[str, Any]) -> None:
        """Take these as the whole of what is shown from now on."""
        self.number += 1
        changed: dict[str, tuple[bytes, int]] = {}
        for name, value in parts.items():
            encoded = _encode(value)
            former = self._parts.get(name)
            changed[name] = former if former and former[0] == encoded else (encoded, self.number)
        self._parts = changed

    def since(self, number: int) -> dict[str, msgspec.Raw]:
        """Return the parts that have changed since that edition; all of them for 0."""
        return {name: msgspec.Raw(data) for name, (data, at) in self._parts.items() if at > number}


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """Return an event for `EventSource`. JSON has no line breaks, so one line holds it."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(data))


def greeting() -> bytes:
    """Return what a stream begins with: how soon to connect again, should it end."""
    return b"retry: %d\n\n" % RETRY_MS
