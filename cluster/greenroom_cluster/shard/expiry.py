"""Which sessions may be due: an index by time, kept in buckets instead of an entry per session.

The index is each replica's own and not part of the replicated state: it says where to look, the logged
decision says what is removed. A session stays in the bucket in which it was entered; when that comes due, a
session whose life was extended meanwhile moves on. So extending a session, which happens at every visit,
costs nothing here.
"""

from collections.abc import Callable

from greenroom_cluster.shard.settings import US_PER_SECOND

BUCKET_US = 4 * US_PER_SECOND


class ExpiryIndex:
    """Digests by the time at which they have to be looked at."""

    __slots__ = ("_buckets", "entries")

    def __init__(self) -> None:
        self._buckets: dict[int, list[bytes]] = {}
        self.entries = 0

    def enter(self, digest: bytes, expires_us: int) -> None:
        """Note a session whose expiry is new, or earlier than before."""
        bucket = expires_us // BUCKET_US
        self.entries += 1
        entries = self._buckets.get(bucket)
        if entries is None:
            self._buckets[bucket] = [digest]
        else:
            entries.append(digest)

    def due(
        self, time_us: int, expiry: Callable[[bytes], int | None], limit: int | None = None
    ) -> list[bytes]:
        """Take out and return the digests that are over at `time_us`, at most `limit`.

        `expiry` tells when a session ends, None if it is gone. What is returned is no longer in the index:
        whoever does not remove it enters it again.
        """
        found: list[bytes] = []
        last = time_us // BUCKET_US
        for bucket in sorted(key for key in self._buckets if key <= last):
            entries = self._buckets.pop(bucket)
            self.entries -= len(entries)
            for index, digest in enumerate(entries):
                if limit is not None and len(found) >= limit:
                    self._buckets.setdefault(bucket, []).extend(entries[index:])
                    self.entries += len(entries) - index
                    return found
                expires_us = expiry(digest)
                if expires_us is None:
                    continue
                if expires_us <= time_us:
                    found.append(digest)
                else:
                    self.enter(digest, expires_us)
        return found
