"""One log line for many transitions: a failover moves every shard of an actor at once."""

from collections import Counter
from typing import Any

from greenroom_cluster.shard.effects import Transition
from greenroom_cluster.shard.roles.role import Role, label_of

_REASONS_MAX = 8
_GONE = "none"
_CHANGED = tuple(label_of(role) for role in Role)


class RoleReport:
    """Collects transitions until they are reported."""

    def __init__(self) -> None:
        self._roles: dict[int, str] = {}
        self._reasons: Counter[str] = Counter()
        self.changes: Counter[str] = Counter(dict.fromkeys(_CHANGED, 0))
        """How many replicas have taken each role, or other members in it, so far."""

    def note(self, transition: Transition) -> None:
        """Take a transition in."""
        if transition.role == _GONE:
            self._roles.pop(transition.shard, None)
        else:
            self._roles[transition.shard] = transition.role
        self._reasons[transition.reason] += 1
        self.changes[label_of(transition.role)] += 1

    def take(self) -> dict[str, Any] | None:
        """Return the fields of a log line, None if nothing happened since the last one.

        `roles` counts the replicas in each role now, `reasons` the transitions since then, the most frequent
        first.
        """
        if not self._reasons:
            return None
        roles = Counter(self._roles.values())
        reasons = dict(self._reasons.most_common(_REASONS_MAX))
        self._reasons.clear()
        return {"roles": dict(sorted(roles.items())), "reasons": reasons}
