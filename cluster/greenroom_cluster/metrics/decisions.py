"""What a coordinator decides: changes of shards by their kinds. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from greenroom_cluster.coordination.messages import Decided, Propose
from greenroom_cluster.coordination.rules import RULES
from greenroom_cluster.metrics.readings import Readings

_REMEMBERED_MAX = 16_384


class Decisions:
    """Counts for one coordinator. What is proposed again and decided once more is counted once."""

    def __init__(self) -> None:
        self._changes: Counter[str] = Counter(dict.fromkeys(RULES, 0))
        self._refusals: Counter[str] = Counter(dict.fromkeys(RULES, 0))
        # The kinds of proposals by their nonces; empty once it was counted.
        self._kinds: dict[bytes, str] = {}

    def asked(self, messages: Sequence[Any]) -> None:
        """Note what is proposed."""
        for message in messages:
            if isinstance(message, Propose):
                for proposal in message.proposals:
                    self._kinds.setdefault(proposal.nonce, proposal.kind)
        while len(self._kinds) > _REMEMBERED_MAX:
            del self._kinds[next(iter(self._kinds))]

    def answered(self, messages: Sequence[Any]) -> None:
        """Count what was decided."""
        for message in messages:
            for decision in message.decisions if isinstance(message, Decided) else ():
                kind = self._kinds.get(decision.nonce, "")
                if kind in RULES:
                    self._kinds[decision.nonce] = ""
                    (self._changes if decision.applied else self._refusals)[kind] += 1

    def tell(self, readings: Readings) -> None:
        """Add what was counted so far."""
        readings.tell_each("greenroom_epoch_changes_total", self._changes)
        readings.tell_each("greenroom_proposals_refused_total", self._refusals)
