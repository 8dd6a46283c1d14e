"""How long each side of a connection believes in it while the other side says nothing.

A side that has vanished tells nobody. Who sends notices by `user_timeout_seconds` without an acknowledgement;
who only waits, by asking after `idle_seconds` and then every `interval_seconds`, until the user timeout is
over as well. Sockets are configured by this, and so is the simulated network.
"""

import msgspec


class Silence(msgspec.Struct, frozen=True):
    """The patience of one side, in seconds."""

    user_timeout_seconds: float = 5.0
    idle_seconds: int = 5
    interval_seconds: int = 2


STORE = Silence()
"""A store's connections to actors and nodes."""

LINK = Silence(idle_seconds=2, interval_seconds=2)
"""What one process of a cluster has opened to another: it should notice soon."""

SERVED = Silence(idle_seconds=15, interval_seconds=15)
"""What a server has accepted: ten thousand idle clients should cost few packets."""
