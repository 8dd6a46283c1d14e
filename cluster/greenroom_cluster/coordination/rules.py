"""The allowed changes of a shard's members: compare-and-set on its epoch, then a table by kind.

The table is the safety argument of coordination in one place. Members are incarnations. Only the primary
adds, removes and hands over; only a backup takes over; a shard starts empty only if no holder of its sessions
can still be alive and none kept them on disk. From disk it goes on with the longest log of all (`recovery`).
Everything here is pure, and no message of a peer makes it raise.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, ShardEntry
from greenroom.errors import UsageError
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.coordination.recovery import (
    Last,
    best_claimant,
    durable_members,
    has_all,
    is_heir,
    is_known_dead,
    unclaimed,
)

EPOCH_LIMIT = 1 << 23
"""Epochs stay below this: a session's version of 63 bits is the epoch shifted left by 40, plus a sequence
number."""

LINEAGE_EPOCHS = 1 << 16
"""How much a new lineage raises every epoch, so that none decided after the lost copy is used again."""

INCARNATION_BYTES = 16
NONCE_BYTES_MIN = 8
NONCE_BYTES_MAX = 16
MEMBERS_MAX = 8

SEQUENCE_MAX = 1 << 40
"""A record's number stays below this, which is what a session's version has room for."""

MARK_MAX = 1 << 62
"""How far a directory can come: the number of a batch in its log."""


class Situation(msgspec.Struct, frozen=True):
    """What a rule sees: the shard's configuration, the proposal and its sender, the map's incarnations.

    `claims` are those that stand on the shard, the proposer's among them (`recovery`). `wall_us` is the
    coordinator's wall clock, 0 if it does not say. `absent` are members that are not heard, which may be
    passed over, and `passed_over` those for whom the time is over.
    """

    entry: ShardEntry
    proposer: bytes
    proposal: Proposal
    actors: Mapping[bytes, ActorEntry]
    claims: Mapping[bytes, Last] = {}
    wall_us: int = 0
    absent: Collection[bytes] = ()
    passed_over: Collection[bytes] = ()

    def state(self, incarnation: bytes) -> str:
        """Return the state of that incarnation in the map, or "unknown"."""
        actor = self.actors.get(incarnation)
        return actor.state if actor is not None else "unknown"


class Rule(msgspec.Struct, frozen=True):
    """One condition of a kind of proposal; `broken` is the reply when it does not hold.

    `waits`: there is no reply then, for it may hold later. The proposal is sent again until it has one.
    """

    broken: str
    holds: Callable[[Situation], bool]
    waits: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of one proposal: the new entry if it changes the shard, and the reply to the proposer.

    `lost` names the members of a configuration that was given up with all its sessions. `waits`: there is no
    reply yet.
    """

    applied: bool
    reason: str
    entry: ShardEntry | None = None
    lost: tuple[bytes, ...] = ()
    waits: bool = False


def _alone(s: Situation) -> bool:
    return s.proposal.primary == s.proposer and not s.proposal.backups


def _nobody_left(s: Situation) -> bool:
    return all(is_known_dead(member, s.actors) for member in s.entry.members)


def _nobody_present(s: Situation) -> bool:
    """Whether no member can serve: each is dead, or not heard while another, without which it cannot, is."""
    return all(is_known_dead(member, s.actors) or member in s.absent for member in s.entry.members)


def _all_claimed(s: Situation) -> bool:
    awaited = {member for member in s.entry.members if not is_known_dead(member, s.actors)}
    awaited |= {member.incarnation for member in unclaimed(s.entry, s.actors, s.claims)}
    return not awaited or (awaited <= set(s.passed_over) and has_all(s.entry, s.actors, s.claims))


def _nothing_kept(s: Situation) -> bool:
    return not any(durable_members(s.entry, s.actors))


def _first_wanted(s: Situation) -> bool:
    actor = s.actors.get(s.proposer)
    return bool(s.entry.wanted) and actor is not None and actor.slot == s.entry.wanted[0]


def _same_primary(s: Situation) -> bool:
    return s.proposal.primary == s.entry.primary


def _same_members(s: Situation) -> bool:
    return {s.proposal.primary, *s.proposal.backups} == set(s.entry.members)


def _added_are_up(s: Situation) -> bool:
    return all(s.state(one) == "up" for one in s.proposal.backups if one not in s.entry.backups)


PROPOSER_UP = Rule(
    "the proposer is not the current incarnation of its slot", lambda s: s.state(s.proposer) == "up"
)
PROPOSER_FIRST_WANTED = Rule("the proposer's slot is not the first one wanted", _first_wanted)
PROPOSER_PRIMARY = Rule("the proposer is not the primary", lambda s: s.proposer == s.entry.primary)
PROPOSER_BACKUP = Rule("the proposer is not a backup", lambda s: s.proposer in s.entry.backups)
ALONE = Rule("the new configuration must be the proposer alone", _alone)
NOBODY_LEFT = Rule("a member is not known to be dead and may hold the sessions", _nobody_left)
NOBODY_PRESENT = Rule(NOBODY_LEFT.broken, _nobody_present)
NOTHING_KEPT = Rule(
    "a member kept the sessions in a directory: the shard waits for that, until it is forgotten",
    _nothing_kept,
)
HEIR = Rule(
    "the proposer does not run in the directory of a member",
    lambda s: is_heir(s.proposer, s.entry, s.actors),
)
# Records of a later epoch show that it was decided: the coordinator's map is an older copy.
NOTHING_LATER = Rule(
    "the directory holds records of a later epoch than the map's: the coordinator's map is an older copy",
    lambda s: s.proposal.last[0] <= s.entry.epoch,
)
ALL_CLAIMED = Rule(
    "not every member's directory is back",
    _all_claimed,
    waits=True,
)
BEST_CLAIM = Rule(
    "another directory holds more",
    lambda s: best_claimant(s.entry, s.actors, s.claims) == s.proposer,
    waits=True,
)
SAME_PRIMARY = Rule("the primary must stay", _same_primary)
SAME_MEMBERS = Rule("the members must stay", _same_members)
FEWER_BACKUPS = Rule(
    "the backups must be some of the present ones, not all",
    lambda s: set(s.proposal.backups) < set(s.entry.backups),
)
MORE_BACKUPS = Rule(
    "the backups must be the present ones and at least one more",
    lambda s: set(s.proposal.backups) > set(s.entry.backups),
)
ADDED_UP = Rule("the added member is not the current incarnation of its slot", _added_are_up)
FROM_BACKUPS = Rule("the new primary is not a backup", lambda s: s.proposal.primary in s.entry.backups)
SUCCESSOR_ALIVE = Rule("the new primary is known to be dead", lambda s: s.state(s.proposal.primary) != "dead")

RULES: dict[str, tuple[Rule, ...]] = {
    "start": (PROPOSER_UP, PROPOSER_FIRST_WANTED, NOBODY_LEFT, NOTHING_KEPT, ALONE),
    "recover": (PROPOSER_UP, ALONE, HEIR, NOBODY_PRESENT, NOTHING_LATER, ALL_CLAIMED, BEST_CLAIM),
    "takeover": (PROPOSER_BACKUP, ALONE),
    "remove": (PROPOSER_PRIMARY, SAME_PRIMARY, FEWER_BACKUPS),
    "add": (PROPOSER_PRIMARY, SAME_PRIMARY, MORE_BACKUPS, ADDED_UP),
    "handover": (PROPOSER_PRIMARY, FROM_BACKUPS, SAME_MEMBERS, SUCCESSOR_ALIVE),
    "reaffirm": (PROPOSER_PRIMARY, SAME_PRIMARY, SAME_MEMBERS),
}


def malformed(proposal: Proposal, shard_count: int) -> str:
    """Return what is wrong with the shape of a proposal, or "" if nothing is."""
    if not 0 <= proposal.shard < shard_count:
        return f"malformed: there is no shard {proposal.shard}, they are 0 to {shard_count - 1}"
    if not NONCE_BYTES_MIN <= len(proposal.nonce) <= NONCE_BYTES_MAX:
        return f"malformed: a nonce has {NONCE_BYTES_MIN} to {NONCE_BYTES_MAX} bytes"
    if proposal.kind not in RULES:
        return "malformed: unknown kind of proposal"
    members = (proposal.primary, *proposal.backups)
    if len(members) > MEMBERS_MAX:
        return f"malformed: a shard has at most {MEMBERS_MAX} members"
    if any(len(member) != INCARNATION_BYTES for member in members):
        return f"malformed: an incarnation has {INCARNATION_BYTES} bytes"
    if len(set(members)) != len(members):
        return "malformed: a member is named twice"
    epoch, sequence = proposal.last
    if not (0 <= epoch < EPOCH_LIMIT and 0 <= sequence < SEQUENCE_MAX):
        return "malformed: the last record is out of range"
    if any(not 0 <= mark <= MARK_MAX for _, mark in proposal.marks):
        return "malformed: the mark of a directory is out of range"
    return ""


def decide(s: Situation) -> Verdict:
    """Decide a proposal that is not `malformed`. Never raises."""
    entry, proposal = s.entry, s.proposal
    if proposal.epoch != entry.epoch:
        if proposal.nonce == entry.nonce:
            return Verdict(applied=True, reason="applied already")
        return Verdict(applied=False, reason=f"stale: the epoch is {entry.epoch}, not {proposal.epoch}")
    if proposal.nonce == entry.nonce:
        return Verdict(applied=False, reason="malformed: this nonce made the present configuration")
    # A late message of an incarnation that has died must not make it the only member: sessions would be lost.
    if s.state(s.proposer) in ("dead", "unknown"):
        return Verdict(applied=False, reason=f"refused: the proposer is {s.state(s.proposer)} in the map")
    for rule in RULES[proposal.kind]:
        if not rule.holds(s):
            return Verdict(applied=False, reason=f"refused: {rule.broken}", waits=rule.waits)
    if entry.epoch + 1 >= EPOCH_LIMIT:
        return Verdict(
            applied=False, reason="refused: this shard has used up its epochs; create a new cluster"
        )
    begins = proposal.kind == "start"
    suspect = None if begins else entry.suspect
    changed = ShardEntry(
        entry.epoch + 1,
        proposal.primary,
        proposal.backups,
        proposal.nonce,
        entry.wanted,
        suspect,
        s.wall_us if proposal.kind == "recover" else 0,
    )
    lost = entry.members if begins else ()
    return Verdict(applied=True, reason=proposal.kind, entry=changed, lost=lost)


def begin_lineage(cluster_map: ClusterMap, above: int = 0) -> ClusterMap:
    """Return the first map of a new lineage, later than both the map's and `above`, with every epoch raised.

    For a coordinator restored from an older copy. The newest map that a node still holds is better than that
    copy, since it includes later decisions. Raises UsageError if epochs would run out.
    """
    lineage = max(cluster_map.lineage, above) + 1
    raised = LINEAGE_EPOCHS * (lineage - cluster_map.lineage)
    if max(entry.epoch for entry in cluster_map.shards) + raised >= EPOCH_LIMIT:
        raise UsageError(
            f"cluster {cluster_map.cluster!r} has used up its epochs in {cluster_map.lineage} lineages: "
            "no further lineage can be started; create a new cluster"
        )
    shards = tuple(msgspec.structs.replace(entry, epoch=entry.epoch + raised) for entry in cluster_map.shards)
    return msgspec.structs.replace(
        cluster_map, lineage=lineage, version=cluster_map.version + 1, shards=shards
    )
