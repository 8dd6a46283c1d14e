"""The coordinator's state for an operator: whether it is there, and what waits for it."""

from collections import Counter

import msgspec

UP = "up"
AWAY = "away"
CUT_OFF = "cut_off"
UNKNOWN = "unknown"

_AWAITED = {
    "start": "their first primary",
    "takeover": "a new primary",
    "remove": "the removal of a lost backup",
    "add": "a new backup",
    "handover": "the hand-over to another primary",
    "reaffirm": "the confirmation of their primary",
}
"""What shards wait for, by the kind of the proposal."""


class Undecided(msgspec.Struct, frozen=True):
    """A change of a shard that the coordinator has not decided yet; `kind` as in a `Proposal`."""

    shard: int
    kind: str


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """Whether the coordinator is there, by the word of the actors that answered.

    `state`: `up`; `away`, no actor reaches it; `cut_off`, some do not; `unknown`, none tells. `away_seconds`:
    how long ago the last of the actors that do not reach it lost it. `unreached_by` names their slots.
    `undecided` is what they wait for.
    """

    state: str = UNKNOWN
    away_seconds: float = 0.0
    unreached_by: tuple[str, ...] = ()
    undecided: tuple[Undecided, ...] = ()

    def told(self) -> str:
        """Return the text for an operator; empty unless the coordinator is missed."""
        if self.state not in {AWAY, CUT_OFF}:
            return ""
        since = f"{self.away_seconds:.0f} s"
        if self.state == AWAY:
            return (
                f"the coordinator has been away for {since}. Shards with all their replicas serve; a lost "
                f"replica is not replaced until it is back. {self._waiting()} Start the coordinator, or see "
                "its log"
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
        """Return what each shard that waits for the coordinator waits for, as an operator sees it."""
        kinds: dict[int, list[str]] = {}
        for each in self.undecided:
            kinds.setdefault(each.shard, []).append(each.kind)
        return {shard: f"coordinator ({', '.join(each)})" for shard, each in kinds.items()}
