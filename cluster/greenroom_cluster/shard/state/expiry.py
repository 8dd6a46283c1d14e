"""Which sessions may be due: an index by time, kept in buckets instead of an entry per session.

The index is each replica's own and not part of the replicated state: it says where to look, the logged
decision says what is removed. A session stays in the bucket in which it was entered; when that comes due, a
session whose life was extended meanwhile moves on. So extending a session, which happens at every visit,
costs nothing here.

The farther away an expiry is, the wider its bucket, so that sessions which end weeks from now share few of
them. When a wide bucket comes due its sessions move to narrower ones, a handful of times in a life. What is
entered is never due at the time of entering, so a look never meets its own work.

Sessions that were deleted, and those whose life was cut short, leave entries behind. When there are many, the
index is built anew beside itself, a bounded number of sessions at a time.

A bucket holds its digests as one run of bytes. A list of them would be looked through by the garbage
collector each time that it comes by: 50 ms for a million, in which nobody is served.

Prior art: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from greenroom.errors import InvariantError
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.settings import US_PER_SECOND

BUCKET_US = 4 * US_PER_SECOND
_FACTOR = 16
_WIDEST_US = BUCKET_US * _FACTOR**4


class ExpiryIndex:
    """Digests by the time, in microseconds of shard time, at which they have to be looked at."""

    __slots__ = ("_buckets", "_successor", "_uncopied", "entries")

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}
        self.entries = 0
        # What will take this index's place, and the sessions that are still to be entered there.
        self._successor: ExpiryIndex | None = None
        self._uncopied: Iterator[bytes] = iter(())

    @property
    def renewed(self) -> bool:
        """Whether it is being built anew."""
        return self._successor is not None

    def renew(self, digests: Iterable[bytes]) -> None:
        """Begin to build it anew, for the sessions of these digests and those entered from now on."""
        self._successor = ExpiryIndex()
        self._uncopied = iter(digests)

    def go_on(self, time_us: int, expiry: Callable[[bytes], int | None], looks: int) -> int:
        """Go on building it anew, by at most `looks` sessions; return at how many it looked."""
        successor, looked = self._successor, 0
        if successor is None:
            return 0
        for digest in islice(self._uncopied, looks):
            looked += 1
            expires_us = expiry(digest)
            if expires_us is not None:
                successor.enter(digest, expires_us, time_us)
        if looked < looks:
            self._buckets, self.entries = successor._buckets, successor.entries  # noqa: SLF001  another of its kind
            self._successor = None
        return looked

    def enter(self, digest: bytes, expires_us: int, time_us: int) -> None:
        """Note at `time_us` a session whose expiry is new, or earlier than before."""
        if len(digest) != DIGEST_BYTES:
            raise InvariantError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
        if self._successor is not None:
            self._successor.enter(digest, expires_us, time_us)
        self._enter(digest, expires_us, time_us)

    def _enter(self, digest: bytes, expires_us: int, time_us: int) -> None:
        look_us = _look_us(expires_us, time_us)
        self.entries += 1
        bucket = self._buckets.get(look_us)
        if bucket is None:
            self._buckets[look_us] = bytearray(digest)
        else:
            bucket += digest

    def due(self, time_us: int, expiry: Callable[[bytes], int | None], looks: int) -> tuple[list[bytes], int]:
        """Take out and return the digests that are over at `time_us`, and at how many it looked.

        A session is found at most a bucket's width after its end, and at most `looks` are looked at. `expiry`
        tells when one ends, None if it is gone. What is returned is no longer in the index: whoever does not
        remove it enters it again.
        """
        found: list[bytes] = []
        left = looks
        for look_us in sorted(key for key in self._buckets if key <= time_us):
            bucket = self._buckets[look_us]
            while bucket and left:
                left -= 1
                digest = bytes(bucket[-DIGEST_BYTES:])
                del bucket[-DIGEST_BYTES:]
                self.entries -= 1
                expires_us = expiry(digest)
                if expires_us is None:
                    continue
                if expires_us <= time_us:
                    found.append(digest)
                else:
                    self._enter(digest, expires_us, time_us)
            if bucket:
                break
            del self._buckets[look_us]
        return found, looks - left


def _look_us(expires_us: int, time_us: int) -> int:
    """Return when to look at a session: at the start of a wide bucket, at the end of a narrow one."""
    ahead_us = expires_us - time_us
    width_us = BUCKET_US
    while ahead_us >= width_us * _FACTOR and width_us < _WIDEST_US:
        width_us *= _FACTOR
    if width_us == BUCKET_US:
        return (max(expires_us, time_us) // BUCKET_US + 1) * BUCKET_US
    return expires_us // width_us * width_us
