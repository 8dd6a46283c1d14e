"""Pairs of actors: leases, beacons and the replication stream, once per pair and not per shard.

`Outgoing` is a pair seen from the primaries' side, `Incoming` from the backups' side. A primary's lease runs
from when the newest acknowledged beacon was *sent*; the grace that a backup gives it runs from when a beacon
was *received*. The grace begins later and lasts longer, so a backup never takes over while a lease that it
granted still runs (Gray and Cheriton, SOSP 1989).

A beacon is acknowledged for all shards of the pair at once. The acknowledgement lists the shards that the
peer no longer backs, by epoch, and repeats the list until the primaries' side confirms it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import Connect, Disconnect, Send
from greenroom_cluster.shard.messages import Beacon, BeaconOk, Prepare, PrepareOk, ShardRecords
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.clock import ShardClock
from greenroom_cluster.shard.state.log import Log
from greenroom_cluster.shard.state.memory import UNLIMITED_BYTES

NEVER_BYTES = -UNLIMITED_BYTES
UNTOLD_BYTES = 256 << 10
"""The most that a primary adds to a backup that has not said yet how much room it has."""


class Source(Protocol):
    """What a pair sends of a shard: its log, and how much of it is decided."""

    @property
    def shard(self) -> int: ...  # noqa: D102  the number of the shard
    @property
    def epoch(self) -> int: ...  # noqa: D102  of the configuration in which this actor is primary
    @property
    def committed(self) -> int: ...  # noqa: D102  up to which record everything is decided and applied
    @property
    def log(self) -> Log: ...  # noqa: D102
    @property
    def clock(self) -> ShardClock: ...  # noqa: D102


class Recipient:
    """A backup or joiner that a shard's primary sends its log to, and how far it has come.

    `counted`: the primary commits only what it has logged, and serves only under its lease. `refused`: it no
    longer backs this epoch; only another configuration changes that.
    `directory` is the one that it writes to, empty if it has none.
    `waiting_since_ns`: since when something waits for its acknowledgement, 0 if nothing does.
    """

    __slots__ = (
        "acknowledged",
        "active",
        "counted",
        "directory",
        "pair",
        "refused",
        "sent",
        "since_ns",
        "source",
        "streaming",
        "waiting_since_ns",
    )

    def __init__(
        self, source: Source, pair: "Outgoing", acknowledged: int, now_ns: int, *, counted: bool
    ) -> None:
        self.source = source
        self.pair = pair
        self.acknowledged = acknowledged
        self.sent = acknowledged
        self.counted = counted
        self.streaming = counted
        self.refused = False
        self.active = True
        self.directory = pair.directory
        self.since_ns = now_ns
        self.waiting_since_ns = 0


class Flight:
    """A `Prepare` in flight."""

    __slots__ = ("batch", "parts")

    def __init__(self, batch: int, parts: list[tuple[Recipient, int]]) -> None:
        self.batch = batch
        self.parts = parts


class Outgoing:
    """The pair with one peer, on the side of the primaries."""

    __slots__ = (
        "_address",
        "_batches",
        "_bulk_users",
        "_context",
        "_evicting_late_bytes",
        "_since_ns",
        "beacon_due_ns",
        "bulk_up",
        "commits_due",
        "directory",
        "disk_short",
        "enough_bytes",
        "evicting_bytes",
        "flights",
        "grant_seen",
        "knows_namespaces",
        "lapsed",
        "lease_until_ns",
        "near_ns",
        "offered_bytes",
        "peer",
        "recipients",
        "refusals_seen",
        "refused",
        "retry_ns",
        "room_bytes",
        "spare_bytes",
        "unsent",
        "up",
    )

    def __init__(
        self, context: Context, peer: bytes, now_ns: int, room_bytes: int, batches: Iterator[int]
    ) -> None:
        self._context = context
        self._address = context.address_of(peer)
        self._batches = batches
        self._since_ns = now_ns
        self._bulk_users = 0
        self.peer = peer
        self.directory = context.directory_of(peer)
        self.up = False
        self.bulk_up = False
        self.lease_until_ns = 0
        self.lapsed = True
        self.beacon_due_ns = 0
        self.retry_ns = NEVER_NS
        self.refusals_seen = 0
        self.refused: dict[int, int] = {}
        self.flights: deque[Flight] = deque()
        self.recipients: dict[int, Recipient] = {}
        self.unsent: dict[int, Recipient] = {}
        self.commits_due: dict[int, Recipient] = {}
        self.room_bytes = room_bytes
        self.offered_bytes: int | None = None
        # Below this, ask for more room at once, but not while a reply that may bring it is on its way.
        self.enough_bytes = NEVER_BYTES
        self.spare_bytes = 0
        self.disk_short = False
        # Bytes that evictions free at the peer but its offers may not show yet; late: since the latest offer.
        self.evicting_bytes = 0
        self._evicting_late_bytes = 0
        self.grant_seen = 0
        # None: nobody has been reached yet. Another release in its place is another incarnation.
        self.knows_namespaces: bool | None = None
        # For how long the peer would wait before it shows what clients may not know of.
        self.near_ns = 0
        context.effects.append(Connect(peer, self._address, bulk=False))

    # --- membership -----------------------------------------------------------------------------------------

    def add(self, recipient: Recipient) -> None:
        """Send to one more recipient."""
        self.recipients[recipient.source.shard] = recipient

    def remove(self, recipient: Recipient) -> None:
        """Stop sending to a recipient; the host closes a pair without any."""
        recipient.active = False
        shard = recipient.source.shard
        if self.recipients.get(shard) is recipient:
            del self.recipients[shard]
            self.unsent.pop(shard, None)
            self.commits_due.pop(shard, None)

    def use_bulk(self) -> None:
        """Have the snapshot connection opened, or kept open for one more join."""
        self._bulk_users += 1
        if self._bulk_users == 1:
            self._context.effects.append(Connect(self.peer, self._address, bulk=True))

    def release_bulk(self) -> None:
        """End one join's use of the snapshot connection."""
        self._bulk_users -= 1
        if self._bulk_users == 0:
            self.bulk_up = False
            self._context.effects.append(Disconnect(self.peer, bulk=True))

    def close(self) -> None:
        """End the pair."""
        self._context.effects.append(Disconnect(self.peer, bulk=False))
        self.up = False

    # --- connection -----------------------------------------------------------------------------------------

    def link_up(self, now_ns: int) -> None:
        """Send everything unacknowledged again, because what was in flight may be lost."""
        self.up = True
        self.flights.clear()
        for recipient in self.recipients.values():
            self.resend(recipient)
            if recipient.streaming:
                self.commits_due[recipient.source.shard] = recipient
        self.beacon(now_ns)
        self.flush()

    def link_down(self) -> None:
        """Note that the connection is gone."""
        self.up = False
        self.flights.clear()

    def resend(self, recipient: Recipient) -> None:
        """Treat a recipient's unacknowledged records as not sent."""
        recipient.sent = recipient.acknowledged
        if recipient.streaming and recipient.source.log.appended > recipient.sent:
            self.unsent[recipient.source.shard] = recipient

    # --- leases ---------------------------------------------------------------------------------------------

    def beacon(self, now_ns: int) -> None:
        """Ask for the lease again, and send the commit points that no `Prepare` has carried."""
        self.beacon_due_ns = now_ns + ns(self._context.settings.beacon_seconds)
        if not self.up:
            return
        self.enough_bytes = NEVER_BYTES
        commits = []
        for shard, recipient in self.commits_due.items():
            source = recipient.source
            commits.append((shard, source.epoch, source.committed, source.clock.last_us))
        self.commits_due.clear()
        message = Beacon(now_ns, self.refusals_seen, tuple(commits), self.grant_seen, self._context.near_ns)
        self._context.effects.append(Send(self.peer, message))

    def on_beacon_ok(self, message: BeaconOk) -> list[int]:
        """Extend the lease; return the shards that the peer, as it says, no longer backs."""
        if message.sent_ns < self._since_ns:
            # It skips refusals that a former pair with this peer confirmed, and this one never saw.
            self._context.ignore("BeaconOk", "it answers a former pair")
            return []
        until_ns = message.sent_ns + self._context.lease_ns
        self.lease_until_ns = max(self.lease_until_ns, until_ns)
        self.lapsed = False
        self.refusals_seen = max(self.refusals_seen, message.refusal)
        self.near_ns = max(self.near_ns, message.near_ns)
        self._take_grant(message)
        left = []
        for shard, epoch in message.refused:
            # Even if this actor is not the primary there yet: it may learn that later.
            self.refused[shard] = max(epoch, self.refused.get(shard, 0))
            recipient = self.recipients.get(shard)
            if recipient is None or recipient.refused:
                continue
            if self.refuses(shard, recipient.source.epoch):
                recipient.refused = True
                left.append(shard)
        return left

    def _take_grant(self, message: BeaconOk) -> None:
        """Use what the peer grants. It has already counted whatever it acknowledged before."""
        unknown = sum(
            recipient.source.log.charged_after(recipient.acknowledged)
            for recipient in self.recipients.values()
            if recipient.streaming
        )
        self.grant_seen = message.grant
        self.room_bytes = message.room_bytes - unknown
        self.offered_bytes = max(self.room_bytes, message.share_bytes - unknown)
        self.enough_bytes = self.room_bytes // 2 if self.room_bytes > 0 else NEVER_BYTES
        self.spare_bytes = message.spare_bytes
        self.disk_short = message.disk_short
        self._context.note_disk(self.peer, short=message.disk_short)
        self.evicting_bytes, self._evicting_late_bytes = self._evicting_late_bytes, 0

    def evict(self, freed: int) -> None:
        """Count on the room that an eviction frees at the peer, until its second next offer."""
        self.evicting_bytes += freed
        self._evicting_late_bytes += freed

    def may_offer(self, size: int) -> bool:
        """Whether the peer may have room for so much after its next reply, or has said nothing yet."""
        return self.offered_bytes is None or size <= self.offered_bytes

    def ask_for_room(self) -> None:
        """Send a beacon at once, because its reply renews the grant, unless the last one is unanswered."""
        if self.enough_bytes != NEVER_BYTES:
            self.enough_bytes = NEVER_BYTES
            self.beacon_due_ns = 0

    def refuses(self, shard: int, epoch: int) -> bool:
        """Whether the peer has said that it does not back this shard at this epoch."""
        return self.refused.get(shard, 0) >= epoch

    # --- replication ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send waiting records, as far as the window allows; the rest follows the next acknowledgement."""
        settings = self._context.settings
        while self.unsent and self.up and len(self.flights) < settings.prepares_in_flight_max:
            entries = []
            parts = []
            room = settings.prepare_bytes_max
            for shard, recipient in tuple(self.unsent.items()):
                source = recipient.source
                log = source.log
                records, room = log.within(recipient.sent, room)
                recipient.sent += len(records)
                if recipient.sent == log.appended:
                    del self.unsent[shard]
                if records:
                    entries.append(ShardRecords(shard, source.epoch, source.committed, records))
                    parts.append((recipient, recipient.sent))
                    self.commits_due.pop(shard, None)
                if room <= 0:
                    break
            if entries:
                batch = next(self._batches)
                self.flights.append(Flight(batch, parts))
                self._context.effects.append(Send(self.peer, Prepare(batch, tuple(entries))))

    def on_prepare_ok(self, message: PrepareOk, now_ns: int) -> list[int]:
        """Take in an acknowledgement; return the shards that may commit more now."""
        if not self.flights or self.flights[0].batch != message.batch:
            self._context.ignore("PrepareOk", f"batch {message.batch} is not the oldest in flight")
            return []
        flight = self.flights.popleft()
        refused = dict(message.refused)
        advanced = []
        for recipient, sequence in flight.parts:
            if not recipient.active:
                continue
            source = recipient.source
            if source.shard in refused:
                self.retry_ns = min(self.retry_ns, now_ns + ns(self._context.settings.refused_retry_seconds))
                recipient.sent = min(recipient.sent, recipient.acknowledged)
                continue
            if sequence > recipient.acknowledged:
                recipient.acknowledged = sequence
                recipient.sent = max(recipient.sent, sequence)
                waits = source.log.appended > sequence
                recipient.waiting_since_ns = now_ns if waits else 0
                advanced.append(source.shard)
        return advanced

    def retry(self) -> None:
        """Send refused records again: the peer may know the configuration by now."""
        self.retry_ns = NEVER_NS
        for recipient in self.recipients.values():
            if recipient.sent == recipient.acknowledged and not recipient.refused:
                self.resend(recipient)
        self.flush()
