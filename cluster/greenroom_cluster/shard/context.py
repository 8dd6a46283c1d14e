"""What all parts of an actor's core share: its identity, its settings, the map, and the effects to return."""

import random

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.shard.effects import HostEffect, Ignored, Propose, Transition, Warned
from greenroom_cluster.shard.settings import HostSettings, ns

NONCE_BYTES = 12
_TOLD_NS = ns(60.0)


class OpenProposal:
    """A proposal whose outcome is not known. It stays open until the shard's epoch has moved.

    A compare-and-set that was not answered may still apply later. So silence proves nothing: the same
    proposal, with the same nonce, is sent again until a later epoch settles it.
    """

    __slots__ = ("proposal", "resend_ns")

    def __init__(self, proposal: Proposal, resend_ns: int) -> None:
        self.proposal = proposal
        self.resend_ns = resend_ns


class Context:
    """Shared by all parts of a host. Only the host writes to it, except for `effects`.

    `current` holds the running incarnation of each slot, `dead` the incarnations that are known dead. Whose
    disk is nearly full is `short`, this one or a peer; it may be more than are known. `near_ns` is what peers
    are told: for how long clients may show what primaries here have answered, 0 until one asks for that.
    `expired` counts the sessions that primaries here found over.
    """

    __slots__ = (
        "_random",
        "_told_ns",
        "acknowledge_ns",
        "current",
        "dead",
        "effects",
        "expired",
        "grace_ns",
        "incarnation",
        "lease_ns",
        "map",
        "near_ns",
        "settings",
        "short",
        "slot",
        "stall_ns",
    )

    def __init__(
        self, incarnation: bytes, slot: str, settings: HostSettings, generator: random.Random
    ) -> None:
        self.incarnation = incarnation
        self.slot = slot
        self.settings = settings
        self._random = generator
        self._told_ns: dict[str, int] = {}
        self.effects: list[HostEffect] = []
        self.map: ClusterMap | None = None
        self.current: dict[str, bytes] = {}
        self.dead: frozenset[bytes] = frozenset()
        self.short: set[bytes] = set()
        self.lease_ns = ns(settings.lease_seconds)
        self.grace_ns = ns(settings.grace_seconds)
        self.stall_ns = ns(settings.stall_seconds)
        self.acknowledge_ns = ns(settings.acknowledge_seconds)
        self.near_ns = 0
        self.expired = 0

    # --- the map --------------------------------------------------------------------------------------------

    def learn(self, after: ClusterMap) -> None:
        """Use this map from now on."""
        self.map = after
        self.current = {actor.slot: key for key, actor in after.actors.items() if actor.state == "up"}
        self.dead = frozenset(key for key, actor in after.actors.items() if actor.state == "dead")

    @property
    def map_version(self) -> int:
        """Version of the newest map known, 0 if none."""
        return 0 if self.map is None else self.map.version

    def address_of(self, incarnation: bytes) -> str:
        """Return where the incarnation listens, empty if the map does not say."""
        actor = None if self.map is None else self.map.actors.get(incarnation)
        return "" if actor is None else actor.address

    def directory_of(self, incarnation: bytes) -> bytes:
        """Return the directory that the incarnation writes to, empty if it has none."""
        actor = None if self.map is None else self.map.actors.get(incarnation)
        return b"" if actor is None else actor.directory

    def slot_of(self, incarnation: bytes) -> str:
        """Return the slot of the incarnation, empty if the map does not say."""
        actor = None if self.map is None else self.map.actors.get(incarnation)
        return "" if actor is None else actor.slot

    def redirect(self, request_id: int, *, appended: bool = False) -> wire.Redirect:
        """Return the reply that sends a client to the map."""
        return wire.Redirect(request_id, self.map_version, appended)

    def note_disk(self, incarnation: bytes, *, short: bool) -> None:
        """Note whether a disk is nearly full."""
        if short:
            self.short.add(incarnation)
        else:
            self.short.discard(incarnation)

    # --- effects --------------------------------------------------------------------------------------------

    def propose(
        self,
        now_ns: int,
        shard: int,
        epoch: int,
        kind: str,
        primary: bytes,
        backups: tuple[bytes, ...],
        *,
        last: tuple[int, int] = (0, 0),
        marks: tuple[tuple[bytes, int], ...] = (),
    ) -> OpenProposal:
        """Emit a new proposal and return it as open."""
        nonce = self._random.randbytes(NONCE_BYTES)
        proposal = Proposal(shard, epoch, nonce, kind, primary, backups, last, marks)
        self.effects.append(Propose(proposal))
        return OpenProposal(proposal, now_ns + ns(self.settings.repropose_seconds))

    def prepare_takeover(self, now_ns: int, shard: int, epoch: int) -> OpenProposal:
        """Return a takeover under a new nonce; it is sent when the next resend is due."""
        nonce = self._random.randbytes(NONCE_BYTES)
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

    def warn_now_and_then(self, now_ns: int, about: str, message: str) -> None:
        """Tell the operator something that happens again and again, once a minute about each thing."""
        told_ns = self._told_ns.get(about)
        if told_ns is None or now_ns - told_ns >= _TOLD_NS:
            self._told_ns[about] = now_ns
            self.warn(message)

    def ignore(self, what: str, reason: str, shard: int = -1, epoch: int = 0) -> None:
        """Record that an input had no effect."""
        self.effects.append(Ignored(what, reason, shard, epoch))
