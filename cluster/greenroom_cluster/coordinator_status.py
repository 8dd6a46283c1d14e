"""The coordinator's state for an operator: whether it is reachable, and what waits for it."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from greenroom.known_coordinators import KnownCoordinators

UP = "up"
AWAY = "away"
CUT_OFF = "cut_off"
UNKNOWN = "unknown"

_AWAITED = {
    "start": "their first primary",
    "takeover": "a new primary",
    "recover": "their recovery from disk",
    "remove": "the removal of a lost backup",
    "add": "a new backup",
    "handover": "the hand-over to another primary",
    "reaffirm": "the confirmation of their primary",
}
"""What a shard waits for, by kind of proposal."""


class Undecided(msgspec.Struct, frozen=True):
    """A proposed change of a shard that the coordinator has not decided yet; `kind` as in `Proposal`."""

    shard: int
    kind: str


def who_leads(known: Sequence[KnownCoordinators]) -> tuple[str, tuple[str, ...]]:
    """Return the coordinator that most of these are, or were, connected to, and all others that they know."""
    counted = Counter(each.address for each in known if each.address)
    address = max(counted, key=lambda each: (counted[each], each), default="")
    return address, tuple(
        sorted({other for each in known for other in (each.address, *each.others)} - {address, ""})
    )


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """Whether the actors that answered can reach the coordinator.

    `state`: `up`; `away`, no actor reaches it; `cut_off`, some do not; `unknown`, no actor says.
    `unreached_by` lists the slots of the actors that do not reach it, `away_seconds` is how long ago the last
    of these lost it, and `undecided` is what they wait for. `address` is the coordinator that they are
    connected to, or were last, and so the one that leads if there are several. The `others` stand by, or are
    away: nobody knows which. `etcd_away_seconds`: how long ago the one that led has said that etcd, which
    keeps the map, does not answer; 0 if none has.
    """

    state: str = UNKNOWN
    away_seconds: float = 0.0
    unreached_by: tuple[str, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    address: str = ""
    others: tuple[str, ...] = ()
    etcd_away_seconds: float = 0.0

    def leads(self) -> str:
        """Return who leads and who does not, for an operator; empty if only one coordinator is known."""
        if not self.others or not self.address:
            return ""
        rest = "stands by, or is away" if len(self.others) == 1 else "stand by, or are away"
        leads = "led last" if self.state == AWAY else "leads"
        return f"{self.address} {leads}; {', '.join(self.others)} {rest}"

    def told(self) -> str:
        """Return the text for an operator; empty unless an actor cannot reach the coordinator."""
        if self.state not in {AWAY, CUT_OFF}:
            return ""
        since = f"{self.away_seconds:.0f} s"
        if self.etcd_away_seconds:
            return (
                f"etcd, which keeps the map, did not answer the coordinator at {self.address}, which has led "
                f"until {since} ago. Shards with all their replicas serve; a lost replica is not replaced "
                f"until etcd is back. {self._waiting()} Start etcd, or see its log and `etcd_away` in those "
                "of the coordinators"
            )
        if self.state == AWAY and self.others:
            named = ", ".join(filter(None, (self.address, *self.others)))
            return (
                f"none of the coordinators ({named}) has led for {since}. "
                "Shards with all their replicas serve; a lost replica is not replaced until one leads. "
                f"{self._waiting()} Start one, or see their logs"
            )
        if self.state == AWAY:
            return (
                f"the coordinator has been away for {since}. Shards with all their replicas serve; a lost "
                f"replica is not replaced until it is back. {self._waiting()} Start the coordinator; if it "
                "runs, its log says why it decides nothing"
            )
        have = "has" if len(self.unreached_by) == 1 else "have"
        return (
            f"{', '.join(self.unreached_by)} {have} not reached the coordinator for {since}, others do. "
            f"{self._waiting()} Look at the network between"
        )

    def _waiting(self) -> str:
        counted = sorted(Counter(each.kind for each in self.undecided).items(), key=lambda each: -each[1])
        if not counted:
            return "No shard waits yet."
        waits = [f"{count} for {_AWAITED.get(kind, kind)}" for kind, count in counted]
        first = counted[0][1]
        waits[0] = waits[0].replace(" for", " shard for" if first == 1 else " shards for", 1)
        return f"Waiting: {', '.join(waits)}."

    def awaited(self) -> dict[int, str]:
        """Return what each waiting shard expects of the coordinator, as text for an operator."""
        kinds: dict[int, list[str]] = {}
        for each in self.undecided:
            kinds.setdefault(each.shard, []).append(each.kind)
        return {shard: f"coordinator ({', '.join(each)})" for shard, each in kinds.items()}
