"""Quotas: how many sessions a namespace may have in a cluster, and how many bytes these may take.

No process sees all sessions of a namespace at once, and to ask others before each write would cost more than
the write. So a quota is kept shard by shard. Ids are spread over the shards by chance, or by the app as it
likes: each shard takes an equal part of the quota, and a margin, so that who spreads its sessions evenly has
all of its quota before any shard is full. Then it has at most all margins more. Who does not is refused
earlier, and fills no shard beyond its part.
"""

import re
from math import isqrt

import msgspec

from greenroom.errors import UsageError
from greenroom.fields import DATA_BYTES_MAX
from greenroom.identities import DEFAULT_NAMESPACE, NAME_PATTERN
from greenroom_cluster.sizes import parse_size

QUOTAS_FLAG = "--quotas"
OTHERS = "*"
"""Stands for each namespace that is not named."""

_MARGIN_SIGMAS = 4
"""So many standard deviations are what a shard may have more than its equal part: one of 30,000 has more."""
_SESSIONS_SPARE = 4
_ENTRY = re.compile(rf"({NAME_PATTERN}|\*)=([0-9]{{1,15}}):(.+)", re.ASCII)


class Quota(msgspec.Struct, frozen=True):
    """What a namespace may have: so many sessions, and so many bytes as these are stored."""

    namespace: str
    sessions: int
    stored_bytes: int

    def part(self, shards: int) -> "Quota":
        """Return what it may have in one shard of so many."""
        if shards == 1:
            return self
        share, size = -(-self.sessions // shards), -(-self.stored_bytes // shards)
        sessions = share + isqrt(_MARGIN_SIGMAS**2 * share) + _SESSIONS_SPARE
        # In proportion, and room for a session of the largest size, since sizes differ.
        size = size * sessions // share + min(DATA_BYTES_MAX, size)
        return Quota(self.namespace, sessions, size)


def parse_quotas(text: str) -> tuple[Quota, ...]:
    """Return the quotas in `NAMESPACE=SESSIONS:BYTES,...`. Raises UsageError, naming the option."""
    found: dict[str, Quota] = {}
    for entry in text.split(",") if text.strip() else ():
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise UsageError(
                f"{QUOTAS_FLAG} takes NAMESPACE=SESSIONS:BYTES, several with commas between, such as "
                f"shop=100000:1GiB,*=10000:64MiB; this is none: {entry.strip()!r}"
            )
        namespace, sessions = match[1], int(match[2])
        size, _ = parse_size(f"{QUOTAS_FLAG} {namespace}={sessions}:BYTES", match[3])
        if namespace in found:
            raise UsageError(f"{QUOTAS_FLAG} names {namespace} twice: give it one quota")
        if not sessions or not size:
            raise UsageError(
                f"{QUOTAS_FLAG} {entry.strip()} leaves {namespace} nothing: give 1 session and 1 byte or more"
            )
        found[namespace] = Quota(namespace, sessions, size)
    return tuple(found.values())


def told(namespace: str) -> str:
    """Return the name of a namespace that is known as "" if it is `default`."""
    return namespace or DEFAULT_NAMESPACE
