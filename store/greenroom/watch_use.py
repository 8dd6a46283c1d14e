"""Which endings an actor is to tell, as it tells an operator."""

import msgspec


class WatchUse(msgspec.Struct, frozen=True, gc=False):
    """How many sessions clients watch at one actor now, and since it started: how many ends it has told them.

    `refused`: how often a client wished to watch one more than it may.
    """

    watched: int = 0
    told: int = 0
    refused: int = 0
