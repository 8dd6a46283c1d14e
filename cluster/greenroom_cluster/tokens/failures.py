"""From where more came that is no token than is answered one by one. Pure.

Nobody guesses 256 random bits. This tells those who try apart, in the log and in answers; it keeps out nobody
who has a token or a certificate, for all users of a host, and all behind one router, come from one address.
"""

from ipaddress import IPv6Address, IPv6Network

from greenroom.addresses import numeric_host

FAILURES_MAX = 10
"""How many failures of a source within a minute are answered."""
MINUTE_SECONDS = 60.0
SOURCES_MAX = 4096
"""How many sources are remembered; one more has the oldest forgotten."""
_NETWORK_BITS = 64


class Failures:
    """The failures of each source in the minute since its first. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._counted)

    def note(self, source: str, now: float) -> bool:
        """Note a failure; return whether it is one of too many."""
        began, count = self._counted.pop(source, (now, 0))
        if not began <= now < began + MINUTE_SECONDS:
            began, count = now, 0
        self._counted[source] = began, min(count + 1, FAILURES_MAX)
        if len(self._counted) > SOURCES_MAX:
            del self._counted[next(iter(self._counted))]
        return count >= FAILURES_MAX


def source_of(host: str) -> str:
    """Return what the failures of a host count for: a host of IPv6 has a whole network of addresses."""
    try:
        found = numeric_host(host)
    except ValueError:
        return host
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, _NETWORK_BITS), strict=False))
    return str(found)
