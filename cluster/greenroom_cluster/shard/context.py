"""What the replicas of one actor share: identity, settings, the map, the pairs, and where effects go."""

import random
from typing import TYPE_CHECKING, Protocol

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.shard.effects import HostEffect, Ignored, MemoryFull, Propose, Transition, Warned
from greenroom_cluster.shard.joining.slots import JoinSlots
from greenroom_cluster.shard.limits.eviction import Evictions
from greenroom_cluster.shard.limits.fairness import FairShare
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.memory import Memory

if TYPE_CHECKING:
    from greenroom_cluster.shard.pairs.incoming import Incoming
    from greenroom_cluster.shard.pairs.outgoing import Outgoing
    from greenroom_cluster.shard.roles.primary import Primary
    from greenroom_cluster.shard.roles.replica import Replica

NONCE_BYTES = 12

MARK_SHARD, MARK_EPOCH, MARK_SEQUENCE = range(3)


class Mark(Protocol):
    """Three integers that name the record about to be applied; a sequence number of 0: none is.

    Kept where they outlive the process, so that a successor can spare itself a record on which this one dies.
    Not a function: three stores take a tenth of a microsecond, a call that packs them twice that.
    """

    def __setitem__(self, field: int, value: int, /) -> None:
        """Set one of them."""


STEP_ITEMS_MAX = 8192
"""After so many items that were read in Python, about 4 us each, a step applies no more."""


class OpenProposal:
    """A proposal whose outcome is not known. It stays open until the shard's epoch has moved.

    A compare-and-set that was not answered may apply at any later time. So nothing is ever concluded from
    silence: the same proposal, with the same nonce, is sent again until a later epoch settles it.
    """

    __slots__ = ("proposal", "resend_ns")

    def __init__(self, proposal: Proposal, resend_ns: int) -> None:
        self.proposal = proposal
        self.resend_ns = resend_ns


class Context:
    """Shared by all replicas of a host, written by the host alone but for `effects`."""

    def __init__(
        self, incarnation: bytes, slot: str, settings: HostSettings, generator: random.Random, mark: Mark
    ) -> None:
        self.mark = mark
        self.incarnation = incarnation
        self.slot = slot
        self.settings = settings
        self.random = generator
        self.effects: list[HostEffect] = []
        self.map: ClusterMap | None = None
        self.current: dict[str, bytes] = {}
        self.dead: frozenset[bytes] = frozenset()
        self.outgoing: dict[bytes, Outgoing] = {}
        self.incoming: dict[bytes, Incoming] = {}
        self.departed: set[bytes] = set()
        self.gone: dict[bytes, None] = {}
        self.lease_ns = ns(settings.lease_seconds)
        self.grace_ns = ns(settings.grace_seconds)
        self.acknowledge_ns = ns(settings.acknowledge_seconds)
        self.joins = JoinSlots(settings)
        self.memory = Memory(settings, slot)
        self.evictions = Evictions()
        self.joins_begun = 0
        self.batches = 0
        self.ready: dict[int, Primary] = {}
        # Replicas that left what is committed to a later step, and what this step may still apply.
        self.behind: dict[int, Replica] = {}
        self.step_bytes = settings.step_bytes
        self.step_items = STEP_ITEMS_MAX
        # Replicas of which the books have yet to be told what they hold.
        self.uncounted: dict[int, Replica] = {}
        # Primaries that may have another page of a long command to log.
        self.unfinished: dict[int, Primary] = {}
        # A gap between steps means that this process stood still: what it knows of others is as old.
        self.pause_ns = ns(2 * settings.beacon_seconds)
        self.stepped_ns = 0
        self.awake_ns = 0
        # Bytes of sessions that logged patches will open.
        self.patch_bytes = 0
        # In this step: entries listed, shards asked for by requests to many, and what was shown to operators.
        self.listed = 0
        self.fanned_out = 0
        self.inspected: tuple[wire.ReplicaState, ...] = ()
        # And items of data that were read in Python.
        self.walked_items = 0
        # Whose requests this step takes in, and how many bytes of whose commands it applied.
        self.identity = ""
        self.applied_bytes: dict[str, int] = {}
        self.fair: FairShare = FairShare()

    def count_all(self) -> None:
        """Bring the books up to date."""
        while self.uncounted:
            self.uncounted.popitem()[1].count_now()

    @property
    def map_version(self) -> int:
        """Version of the newest map known, 0 if none."""
        return 0 if self.map is None else self.map.version

    def address_of(self, incarnation: bytes) -> str:
        """Return where the incarnation listens, empty if the map does not tell."""
        actor = None if self.map is None else self.map.actors.get(incarnation)
        return "" if actor is None else actor.address

    def slot_of(self, incarnation: bytes) -> str:
        """Return the place that the incarnation takes, empty if the map does not tell."""
        actor = None if self.map is None else self.map.actors.get(incarnation)
        return "" if actor is None else actor.slot

    def propose(
        self, now_ns: int, shard: int, epoch: int, kind: str, primary: bytes, backups: tuple[bytes, ...]
    ) -> OpenProposal:
        """Emit a new proposal and return it as open."""
        nonce = self.random.randbytes(NONCE_BYTES)
        proposal = Proposal(shard, epoch, nonce, kind, primary, backups)
        self.effects.append(Propose(proposal))
        return OpenProposal(proposal, now_ns + ns(self.settings.repropose_seconds))

    def prepare_takeover(self, now_ns: int, shard: int, epoch: int) -> OpenProposal:
        """Return a takeover under a new nonce, to be sent when it is due to be sent again."""
        nonce = self.random.randbytes(NONCE_BYTES)
        proposal = Proposal(shard, epoch, nonce, "takeover", self.incarnation, ())
        return OpenProposal(proposal, now_ns + ns(self.settings.repropose_seconds))

    def repropose(self, now_ns: int, opened: OpenProposal) -> None:
        """Send an open proposal again, unchanged."""
        opened.resend_ns = now_ns + ns(self.settings.repropose_seconds)
        self.effects.append(Propose(opened.proposal))

    def transition(self, shard: int, epoch: int, role: str, reason: str) -> None:
        """Tell the operator that a replica changed."""
        self.effects.append(Transition(shard, epoch, role, reason))

    def warn(self, message: str, shard: int = -1) -> None:
        """Tell the operator something that is not a transition."""
        self.effects.append(Warned(message, shard))

    def refuse_growth(self, slot: str) -> None:
        """Note, and tell the operator now and then, that growth is refused for want of memory at an actor."""
        if self.memory.refuse(slot, self.stepped_ns):
            self.effects.append(MemoryFull(slot))

    def ignore(self, what: str, reason: str, shard: int = -1, epoch: int = 0) -> None:
        """Record that an input had no effect."""
        self.effects.append(Ignored(what, reason, shard, epoch))

    def redirect(self, request: int, *, appended: bool = False) -> wire.Redirect:
        """Return the answer that sends a client to the map."""
        return wire.Redirect(request, self.map_version, appended)
