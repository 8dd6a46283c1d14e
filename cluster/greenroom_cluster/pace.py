"""How often an observer may look at an actor, whom each look costs work."""

EVERY_NS = 1_000_000_000
BURST = 4
_HOLDERS_MAX = 1024


class Pace:
    """One look a second for each holder of a certificate, and up to `BURST` at once after a pause.

    Several who watch a cluster by one certificate look at the same moment now and then. Times are those of
    one clock, in nanoseconds.
    """

    def __init__(self) -> None:
        # When each holder has used up its looks, if it takes no more.
        self._used_up_ns: dict[str, int] = {}

    def admits(self, holder: str, now_ns: int) -> bool:
        """Whether this holder may look now; if so, it counts as a look."""
        used_up_ns = max(self._used_up_ns.get(holder, 0), now_ns) + EVERY_NS
        if used_up_ns > now_ns + BURST * EVERY_NS:
            return False
        if len(self._used_up_ns) >= _HOLDERS_MAX:
            self._used_up_ns = {each: at for each, at in self._used_up_ns.items() if at > now_ns}
        self._used_up_ns[holder] = used_up_ns
        return True
