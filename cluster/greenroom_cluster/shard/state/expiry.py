"""Which sessions may have expired: an index by time that keeps buckets instead of an entry per session.

Each replica has its own index, which is not part of the replicated state: it says where to look, and a logged
decision says what is removed. A session stays in the bucket in which it was entered; when that bucket comes
due, a session whose life was extended moves on to another. So extending a session, which happens at every
visit, costs nothing here.

The farther away an expiry is, the wider its bucket, so sessions that end weeks from now share a few buckets.
When a wide bucket comes due, its sessions move to narrower ones; that happens a handful of times in a life. A
session is never entered into a bucket that is due, so a pass never meets its own entries.

Deleted sessions, and those whose life was cut short, leave entries behind. When there are many of these, a
new index is built beside the old one, a bounded number of sessions at a time.

A bucket holds its digests as one run of bytes. The garbage collector would traverse a list of them at every
full collection: 50 ms for a million, during which nobody is served.

Prior art: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from greenroom.errors import InvariantError
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.settings import US_PER_SECOND

BUCKET_US = 4 * US_PER_SECOND
_FACTOR = 16
_WIDER_US = tuple(BUCKET_US * _FACTOR**power for power in range(1, 5))
"""So far ahead buckets become wider."""
_WIDEST_US = _WIDER_US[-1]


class ExpiryIndex:
    """Digests by the time, in microseconds of shard time, at which they have to be looked at."""

    __slots__ = ("_buckets", "_named", "_successor", "_uncopied", "entries")

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}
        # Keys of other namespaces, which are longer. Dicts, for the garbage collector's sake as well.
        self._named: dict[int, dict[bytes, None]] = {}
        self.entries = 0
        # The index that will replace this one, and the sessions still to be entered there.
        self._successor: ExpiryIndex | None = None
        self._uncopied: Iterator[bytes] = iter(())

    @property
    def renewed(self) -> bool:
        """Whether a new index is being built."""
        return self._successor is not None

    def renew(self, digests: Iterable[bytes]) -> None:
        """Begin to build a new index, of these digests and of those entered from now on."""
        self._successor = ExpiryIndex()
        self._uncopied = iter(digests)

    def go_on(self, time_us: int, expiry: Callable[[bytes], int | None], looks: int) -> int:
        """Go on building, by at most `looks` sessions; return how many it looked at."""
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
            self._named = successor._named  # noqa: SLF001  as above
            self._successor = None
        return looked

    def enter(self, digest: bytes, expires_us: int, time_us: int) -> None:
        """Note at `time_us` a session whose expiry is new, or earlier than before."""
        if len(digest) < DIGEST_BYTES:
            raise InvariantError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
        if self._successor is not None:
            self._successor.enter(digest, expires_us, time_us)
        self._enter(digest, expires_us, time_us)

    def enter_all(self, digests: Sequence[bytes], expires_us: Sequence[int], time_us: int) -> None:
        """Note many sessions at once, as what a start finds; no new index is being built."""
        run = b"".join(digests)
        if not run:
            return
        # What was stored together mostly ends together.
        look_us = _common_look_us(min(expires_us), max(expires_us), time_us)
        if look_us is not None and len(run) == DIGEST_BYTES * len(digests):
            self.entries += len(digests)
            self._buckets.setdefault(look_us, bytearray()).extend(run)
        else:
            self._enter_apart(digests, expires_us, time_us)

    def _enter_apart(self, digests: Sequence[bytes], expires_us: Sequence[int], time_us: int) -> None:
        found: dict[int, list[bytes]] = {}
        for digest, ends_us in zip(digests, expires_us, strict=True):
            if len(digest) != DIGEST_BYTES:
                self.enter(digest, ends_us, time_us)
                self.entries -= 1
                continue
            if ends_us - time_us >= _WIDEST_US:  # most live for weeks
                look_us = ends_us // _WIDEST_US * _WIDEST_US
            else:
                look_us = _look_us(ends_us, time_us)
            found.setdefault(look_us, []).append(digest)
        self.entries += len(digests)
        for look_us, bucket in found.items():
            self._buckets.setdefault(look_us, bytearray()).extend(b"".join(bucket))

    def _enter(self, digest: bytes, expires_us: int, time_us: int) -> None:
        if expires_us - time_us >= _WIDEST_US:  # the same as `_look_us` says, without a call
            look_us = expires_us // _WIDEST_US * _WIDEST_US
        else:
            look_us = _look_us(expires_us, time_us)
        self.entries += 1
        if len(digest) > DIGEST_BYTES:
            named = self._named.setdefault(look_us, {})
            self.entries -= digest in named
            named[digest] = None
            return
        bucket = self._buckets.get(look_us)
        if bucket is None:
            self._buckets[look_us] = bytearray(digest)
        else:
            bucket += digest

    def due(self, time_us: int, expiry: Callable[[bytes], int | None], looks: int) -> tuple[list[bytes], int]:
        """Take out the digests that have expired at `time_us`; return them, and the number of looks.

        A session is found at most a bucket's width after its end. `looks` bounds how many are looked at.
        `expiry` says when one ends, None if it is gone. The returned digests are no longer in the index: the
        caller removes the session or enters it again.
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
        left = self._due_named(time_us, expiry, left, found) if self._named else left
        return found, looks - left

    def _due_named(
        self, time_us: int, expiry: Callable[[bytes], int | None], left: int, found: list[bytes]
    ) -> int:
        """Do the same for keys of other namespaces; return how many looks are left."""
        for look_us in sorted(each for each in self._named if each <= time_us):
            named = self._named[look_us]
            while named and left:
                left -= 1
                key, _ = named.popitem()
                self.entries -= 1
                expires_us = expiry(key)
                if expires_us is None:
                    continue
                if expires_us <= time_us:
                    found.append(key)
                else:
                    self._enter(key, expires_us, time_us)
            if named:
                break
            del self._named[look_us]
        return left


def _common_look_us(first_us: int, last_us: int, time_us: int) -> int | None:
    """Return when to look at all sessions that end between two times, None if not at one time."""
    if any(first_us - time_us < wider_us <= last_us - time_us for wider_us in _WIDER_US):
        return None
    look_us = _look_us(first_us, time_us)
    return look_us if look_us == _look_us(last_us, time_us) else None


def _look_us(expires_us: int, time_us: int) -> int:
    """Return when to look at a session: when a wide bucket starts, when a narrow one ends."""
    ahead_us = expires_us - time_us
    width_us = BUCKET_US
    while ahead_us >= width_us * _FACTOR and width_us < _WIDEST_US:
        width_us *= _FACTOR
    if width_us == BUCKET_US:
        return (max(expires_us, time_us) // BUCKET_US + 1) * BUCKET_US
    return expires_us // width_us * width_us
