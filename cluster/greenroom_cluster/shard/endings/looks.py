"""When to look whether sessions that are watched have expired, so that their ends are told soon.

A shard's own index finds what has expired some seconds later, which is soon enough to free memory. What is
watched is few beside what is stored, and is looked at when it is over. The farther away an end is, the wider
its bucket, so there are few buckets, and a session whose life is extended again and again costs nothing
here. When a wide bucket comes due, its sessions move on to narrower ones.
"""

from collections.abc import Callable

BUCKET_US = 250_000
FACTOR = 16
WIDEST_US = BUCKET_US * FACTOR**4


class Looks:
    """Keys by the time, in microseconds of shard time, at which they have to be looked at."""

    __slots__ = ("_buckets", "_look_us")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, None]] = {}
        self._look_us: dict[bytes, int] = {}

    def enter(self, key: bytes, expires_us: int, time_us: int) -> None:
        """Have a session looked at that ends then, as far as is known now."""
        self.leave(key)
        look_us = _look_us(expires_us, time_us)
        self._look_us[key] = look_us
        self._buckets.setdefault(look_us, {})[key] = None

    def leave(self, key: bytes) -> None:
        """Forget a session, if it is there."""
        look_us = self._look_us.pop(key, None)
        if look_us is not None:
            bucket = self._buckets[look_us]
            del bucket[key]
            if not bucket:
                del self._buckets[look_us]

    @property
    def next_us(self) -> int | None:
        """When the next look is due, None if there is none."""
        return min(self._buckets, default=None)

    def due(self, time_us: int, expiry: Callable[[bytes], int | None], most: int) -> list[bytes]:
        """Take out and return sessions that are over, after at most so many looks."""
        over: list[bytes] = []
        while most > 0 and (look_us := self.next_us) is not None and look_us <= time_us:
            key = next(iter(self._buckets[look_us]))
            self.leave(key)
            most -= 1
            expires_us = expiry(key)
            if expires_us is None:
                continue
            if expires_us <= time_us:
                over.append(key)
            else:
                self.enter(key, expires_us, time_us)
        return over


def _look_us(expires_us: int, time_us: int) -> int:
    """Return when to look at a session: when a wide bucket starts, when a narrow one ends."""
    ahead_us, width_us = expires_us - time_us, BUCKET_US
    while ahead_us >= width_us * FACTOR and width_us < WIDEST_US:
        width_us *= FACTOR
    if width_us == BUCKET_US:
        return (max(expires_us, time_us) // BUCKET_US + 1) * BUCKET_US
    return expires_us // width_us * width_us
