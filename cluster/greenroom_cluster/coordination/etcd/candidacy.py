"""One coordinator among several: when it serves, with which map it begins, and what it keeps meanwhile. Pure.

`Leadership` says who leads, and writes one thing at a time. Here its terms become those of a server: a term
begins once the map to begin with is in etcd, what is to be kept is kept in the order in which that is asked,
and nothing that a former term wants is kept any more. Process and simulation are shells around this.

Whoever reaches etcd but not the nodes leads in vain. So it lets others lead first once most nodes are silent,
which are marked down in its map, of those that were up when its term began or have come up since. If they are
gone indeed, the next leader expects fewer; and whoever hears none at all gives up ever more rarely.
"""

from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipEffect, LeadershipInput
from greenroom_cluster.coordination.genesis import ClusterOptions, begun

ALONE_NS = 2_000_000_000
"""So long most nodes are down before a leader gives up; twice as long each time until it hears them again."""
YIELD_NS = 1_000_000_000
"""For so long it does not lead then: others look twice as often, or are told."""
ALONE = "it hears too few nodes: others may hear more"
_DOUBLED_MAX = 10


class Begin(msgspec.Struct, frozen=True):
    """Serve, from this map and these marks on. `term` is the number of this time."""

    term: int
    map: ClusterMap
    marks: dict[bytes, int]


class Cease(msgspec.Struct, frozen=True):
    """Serve no longer, and reply to nothing that is undecided. If `Begin` has not come, nothing changes.

    `away`: because etcd does not answer.
    """

    reason: str
    away: bool = False


class Kept(msgspec.Struct, frozen=True):
    """What was to be kept under this number is in etcd for good."""

    number: int


Request: TypeAlias = ls.Grant | ls.Renew | ls.Transact | ls.Revoke
CandidacyEffect: TypeAlias = Request | Begin | Cease | Kept


class Candidacy:
    """The part of one coordinator with these options; `identity` is that of a cluster which it creates.

    Call `step` when something has happened and at `next_deadline()`. It raises UsageError if the options
    differ from the cluster in etcd. Where etcd holds what this release cannot read, it leads again later.
    """

    def __init__(self, leadership: Leadership, options: ClusterOptions, identity: bytes) -> None:
        self._leadership = leadership
        self._options = options
        self._identity = identity
        self._term = 0
        self._serves = False
        self._beginning: Begin | None = None
        self._waiting: deque[tuple[int, ClusterMap | Mapping[bytes, int]]] = deque()
        self._expected: frozenset[str] = frozenset()
        self._alone_since_ns = NEVER_NS
        self._doubled = 0

    @property
    def leader_key(self) -> bytes:
        """The key to watch: what it holds is who leads."""
        return self._leadership.leader_key

    def next_deadline(self) -> int:
        """Return when `step` is due even if nothing happens, in nanoseconds of its clock."""
        return min(self._leadership.next_deadline(), self._gives_up_ns())

    def serves(self, term: int) -> bool:
        """Whether that term goes on."""
        return self._serves and term == self._term

    def step(self, now_ns: int, happened: LeadershipInput | None = None) -> list[CandidacyEffect]:
        """Take in what has happened, if anything, and do what is due."""
        effects = self._follow(now_ns, self._leadership.step(now_ns, happened))
        if now_ns < self._gives_up_ns():
            return effects
        self._doubled = min(self._doubled + 1, _DOUBLED_MAX)
        return effects + self._follow(now_ns, self._leadership.give_up(now_ns, ALONE, YIELD_NS))

    def keep(
        self, now_ns: int, term: int, number: int, what: ClusterMap | Mapping[bytes, int]
    ) -> list[CandidacyEffect]:
        """Keep a map, or the marks of directories; `Kept` follows, unless the term is over before."""
        if not self.serves(term):
            return []
        if isinstance(what, ClusterMap):
            self._count_nodes(now_ns, what)
        self._waiting.append((number, what))
        return self._write(now_ns) if len(self._waiting) == 1 else []

    def end(self, now_ns: int) -> list[ls.Revoke]:
        """Take part no longer: whoever stands by need not wait for the end of a lease."""
        self._cease()
        return self._leadership.end(now_ns)

    def _follow(self, now_ns: int, effects: list[LeadershipEffect]) -> list[CandidacyEffect]:
        followed: list[CandidacyEffect] = []
        for effect in effects:
            match effect:
                case ls.Lead():
                    followed += self._lead(now_ns, effect)
                case ls.Saved():
                    followed += self._saved(now_ns)
                case ls.Resign(reason=reason, away=away):
                    self._cease()
                    followed.append(Cease(reason, away))
                case _:
                    followed.append(effect)
        return followed

    def _lead(self, now_ns: int, lead: ls.Lead) -> list[CandidacyEffect]:
        first = begun(lead.map, self._options, self._identity)
        self._beginning = Begin(self._term + 1, first, lead.marks)
        if first is lead.map:
            return self._begin(now_ns, self._beginning)
        return self._follow(now_ns, self._leadership.save(now_ns, first))

    def _begin(self, now_ns: int, beginning: Begin) -> list[CandidacyEffect]:
        self._beginning, self._term, self._serves = None, beginning.term, True
        self._expected, self._alone_since_ns = frozenset(), NEVER_NS
        self._count_nodes(now_ns, beginning.map)
        return [beginning]

    def _saved(self, now_ns: int) -> list[CandidacyEffect]:
        if self._beginning is not None:
            return self._begin(now_ns, self._beginning)
        number, _ = self._waiting.popleft()
        return [Kept(number), *self._write(now_ns)]

    def _write(self, now_ns: int) -> list[CandidacyEffect]:
        if not self._waiting:
            return []
        _, what = self._waiting[0]
        if isinstance(what, ClusterMap):
            return self._follow(now_ns, self._leadership.save(now_ns, what))
        return self._follow(now_ns, self._leadership.save_marks(now_ns, what))

    def _cease(self) -> None:
        self._serves, self._beginning = False, None
        self._alone_since_ns = NEVER_NS
        self._waiting.clear()

    # --- nodes -------------------------------------------------------------------------------------------

    def _gives_up_ns(self) -> int:
        if self._alone_since_ns == NEVER_NS:
            return NEVER_NS
        return self._alone_since_ns + (ALONE_NS << self._doubled)

    def _count_nodes(self, now_ns: int, cluster_map: ClusterMap) -> None:
        """Note how many nodes are heard, by a map of this term: others are down in it."""
        states = {name: node.state for name, node in cluster_map.nodes.items() if node.state != "leaving"}
        up = frozenset(name for name, state in states.items() if state == "up")
        self._expected = (self._expected | up).intersection(states)
        if states and (not up or 2 * len(up) < len(self._expected)):
            self._alone_since_ns = min(self._alone_since_ns, now_ns)
            return
        self._alone_since_ns = NEVER_NS
        if up:
            self._doubled = 0
