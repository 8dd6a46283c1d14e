# ruff: noqa: ANN001, ANN002, ANN202, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of the replication core: logs, leases, members, identity."""

import msgspec

from greenroom.cluster_map import ShardEntry
from greenroom_cluster.links import outbox
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.pairs.incoming import Incoming
from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.peers import Peers
from greenroom_cluster.shard.roles import accepts, backup, replica
from greenroom_cluster.shard.roles.accepts import ACCEPTS
from greenroom_cluster.shard.roles.membership import Membership
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.role import InputKind, Role
from greenroom_cluster.shard.state.copy import Copy
from simulations.mutants.patching import Patches, instead, mutant
from simulations.mutants.stories import HANDS_OVER_BUSY, HEARS_LATE, SLOW_PEER, THIN_LINE, WAKES_AMID_REJOINED

# --- ⚑ ---------------------------------------------------------------------------------------------------


@mutant("acknowledges records after its takeover proposal", flagged=True)
def _(patches: Patches) -> None:
    """⚑ A backup that has proposed to take over goes on logging and acknowledging at that epoch."""
    row = {kind: ACCEPTS[Role.BACKUP][kind] for kind in (InputKind.RECORDS, InputKind.COMMIT)}
    patches.set(accepts, "ACCEPTS", {**ACCEPTS, Role.FENCED: row})


@mutant("backs the primary after its takeover proposal", flagged=True)
def _(patches: Patches) -> None:
    """⚑ A backup that has proposed to take over still answers beacons as if it backed the primary."""
    original = Replica.become_fenced

    def become_fenced(self, now_ns, reason):
        within = Patches()
        within.set(Incoming, "refuse", lambda incoming, shard, epoch: incoming.backed.discard(shard))
        try:
            original(self, now_ns, reason)
        finally:
            within.undo()

    patches.set(Replica, "become_fenced", become_fenced)


@mutant("obeys only the old configuration while adding a member", flagged=True, budget=1500)
def _(patches: Patches) -> None:
    """⚑ While an addition is proposed, records are committed without the joiner's word."""
    add, reconfigure = Membership.add_if_caught_up, Membership.reconfigure

    def add_if_caught_up(self, now_ns):
        joiner = self.joiner
        add(self, now_ns)
        if joiner is not None and self.opened is not None and self.opened.proposal.kind == "add":
            joiner.counted = False
            self._replication.count_recipients()

    def counting(self, now_ns):
        backups = self._copy.members[1:]
        for recipient in self._replication.recipients:
            if recipient.pair.peer in backups:
                recipient.counted = True
                recipient.acknowledged = max(recipient.acknowledged, 0)
        reconfigure(self, now_ns)

    patches.set(Membership, "add_if_caught_up", add_if_caught_up)
    patches.set(Membership, "reconfigure", counting)


# --- the log ---------------------------------------------------------------------------------------------


@mutant("acknowledges before the backup has the record")
def _(patches: Patches) -> None:
    """The primary commits and answers as soon as it has logged a record itself."""
    advance, append = Primary.advance, Replication.append

    def alone(self, now_ns, wall_us):
        with instead(self.replication, counted=()):
            advance(self, now_ns, wall_us)

    def append_and_go(self, *arguments):
        sequence = append(self, *arguments)
        self._step.ready[self.copy.shard] = None
        return sequence

    patches.set(Primary, "advance", alone)
    patches.set(Replication, "append", append_and_go)


@mutant("commits alone before the removal is decided")
def _(patches: Patches) -> None:
    """A primary that proposes to remove a backup acknowledges without it at once."""
    original = Membership._propose_removal

    def propose_removal(self, peers, reason, now_ns):
        original(self, peers, reason, now_ns)
        for recipient in self._replication.recipients:
            if recipient.pair.peer in peers:
                recipient.counted = False
        self._replication.count_recipients()
        self._step.ready[self._copy.shard] = None

    patches.set(Membership, "_propose_removal", propose_removal)


@mutant("takes over without its prepared log")
def _(patches: Patches) -> None:
    """A new primary drops the records whose commit it has not heard of."""
    original = Replica.become_primary

    def become_primary(self, now_ns, wall_us, before, suspect):
        log = type(self.log)(self.committed)
        self.log = log
        original(self, now_ns, wall_us, before, suspect)

    patches.set(Replica, "become_primary", become_primary)


@mutant("serves before its prepared log is applied")
def _(patches: Patches) -> None:
    """A new primary answers from the state that its first step has left."""
    original = Primary.reconfigure

    def reconfigure(self, now_ns, wall_us):
        self.replication.behind = False
        original(self, now_ns, wall_us)

    patches.set(Primary, "reconfigure", reconfigure)
    patches.set(Copy, "affordable", lambda self, through: min(through, self.committed + 1))


@mutant("serves before its takeover is decided")
def _(patches: Patches) -> None:
    """A backup whose grace is over serves at once, while its proposal is still under way."""
    original = Replica.become_fenced

    def become_fenced(self, now_ns, reason):
        original(self, now_ns, reason)
        opened, primary, members = self.opened, self.primary_incarnation, self.members
        self.members = (self.context.incarnation,)
        self.become_primary(now_ns, self.clock.last_us, self.epoch)
        self.members, self.opened, self.primary_incarnation = members, opened, primary

    patches.set(Replica, "become_fenced", become_fenced)


@mutant("adds a joiner whose snapshot is incomplete")
def _(patches: Patches) -> None:
    """A joiner is proposed as soon as it has the first chunk, and takes its place without the others."""
    patches.set(replica.Replica, "fits", lambda self: True)

    def add_if_ready(self, now_ns):
        joiner, transfer = self.joiner, self.transfer
        if joiner is None or transfer is None or transfer.acknowledged < 0 or self.opened is not None:
            return
        joiner.counted = True
        self._replication.count_recipients()
        self.add_if_caught_up(now_ns)

    patches.set(Membership, "_add_if_ready", add_if_ready)

    def settle(name):
        original = getattr(Replica, name)

        def become(self, *arguments):
            if self.receiver is not None:
                self.receiver.complete = True
            original(self, *arguments)

        patches.set(Replica, name, become)

    settle("become_primary")
    settle("become_backup")


def _forget_what_is_not_committed(patches: Patches) -> None:
    """Let a primary that becomes a backup drop the rest of its log, else the core itself would notice."""
    original = Replica.become_backup

    def become_backup(self, now_ns, primary, before):
        if self.primary is not None and self.committed != self.log.appended:
            self.log.appended = self.committed
            self.log._entries.clear()
            self.log.held_bytes = 0
        original(self, now_ns, primary, before)

    patches.set(Replica, "become_backup", become_backup)


@mutant("hands over before everything is in every log", budget=50, plan=HANDS_OVER_BUSY)
def _(patches: Patches) -> None:
    """A hand-over is proposed while records wait for acknowledgements."""

    def hand_over(self, now_ns):
        current, context = self._copy, self._context
        if self.opened is not None or context.map is None:
            return
        successor = context.current.get(context.map.shards[current.shard].wanted[0], b"")
        if successor not in current.members[1:]:
            return
        rest = tuple(peer for peer in current.members if peer != successor)
        current.role = Role.HANDING_OVER
        self._propose(now_ns, "handover", successor, rest)

    patches.set(Membership, "hand_over_if_drained", hand_over)
    _forget_what_is_not_committed(patches)


@mutant("goes on serving after it proposed a hand-over")
def _(patches: Patches) -> None:
    """The primary keeps accepting writes while a hand-over is under way."""
    original = Membership.hand_over_if_drained

    def hand_over(self, now_ns):
        original(self, now_ns)
        self.draining = False
        self._copy.role = Role.PRIMARY

    patches.set(Membership, "hand_over_if_drained", hand_over)
    _forget_what_is_not_committed(patches)


@mutant("takes records of an epoch that is over", budget=200, plan=WAKES_AMID_REJOINED)
def _(patches: Patches) -> None:
    """A backup does not compare epochs: a deposed primary's records go into its log."""

    def follows(current, sender, epoch, kind):  # noqa: ARG001
        return sender == current.primary_incarnation or epoch < current.epoch

    patches.set(backup, "_is_from_primary", follows)


# --- leases ----------------------------------------------------------------------------------------------


@mutant("measures the lease from receipt", budget=1500)
def _(patches: Patches) -> None:
    """A lease runs from when its acknowledgement arrived, not from when it was asked for."""
    original = Peers._beacon_ok

    def beacon_ok(self, now_ns, wall_us, peer, message):
        original(self, now_ns, wall_us, peer, msgspec.structs.replace(message, sent_ns=now_ns))

    patches.set(Peers, "_beacon_ok", beacon_ok)


@mutant("counts a lease as renewed when it asks")
def _(patches: Patches) -> None:
    """Sending a beacon extends the lease: a one-way partition goes unnoticed."""
    original = Outgoing.beacon

    def beacon(self, now_ns):
        original(self, now_ns)
        if self.up:
            self.lease_until_ns = max(self.lease_until_ns, now_ns + self._context.lease_ns)
            self.lapsed = False

    patches.set(Outgoing, "beacon", beacon)


@mutant("answers reads without a lease")
def _(patches: Patches) -> None:
    """Reads trust what this actor believes: a paused primary wakes up and answers."""
    patches.set(Primary, "leased", lambda self, now_ns: True)


@mutant("waits a grace that is shorter than the lease")
def _(patches: Patches) -> None:
    """A backup takes over while a lease that it granted still runs."""
    original = Context.__init__

    def init(self, *arguments):
        original(self, *arguments)
        self.grace_ns = self.lease_ns * 6 // 10

    patches.set(Context, "__init__", init)


@mutant("ignores that a peer stopped backing it")
def _(patches: Patches) -> None:
    """Refusals in the acknowledgements of beacons are overlooked."""
    original = Outgoing.on_beacon_ok

    def on_beacon_ok(self, message):
        return original(self, msgspec.structs.replace(message, refused=()))

    patches.set(Outgoing, "on_beacon_ok", on_beacon_ok)


@mutant("waits for a slow peer", budget=50, plan=SLOW_PEER)
def _(patches: Patches) -> None:
    """A backup that answers beacons is never given up, however long its acknowledgements take."""
    original = Membership._lost

    def lost(self, recipient, now_ns):
        reason = original(self, recipient, now_ns)
        return None if reason == "it acknowledges too slowly" else reason

    patches.set(Membership, "_lost", lost)


@mutant("lets a snapshot starve beacons", budget=50, plan=THIN_LINE)
def _(patches: Patches) -> None:
    """A snapshot goes on the connection of records and beacons, and no beacon overtakes it."""
    original = Membership._send_chunks

    def send_chunks(self):
        effects = self._context.effects
        before = len(effects)
        if self.joiner is not None and self.joiner.pair.up:
            original(self)
            effects[before:] = [msgspec.structs.replace(effect, bulk=False) for effect in effects[before:]]

    link_up = Peers.link_up

    def link_up_and_send(self, now_ns, wall_us, event):
        link_up(self, now_ns, wall_us, event)
        pair = self._pairs.outgoing.get(event.peer)
        if pair is not None and not event.bulk:
            for primary in self._primaries(pair):
                primary.membership.on_bulk_up(event.peer)

    patches.set(Membership, "_send_chunks", send_chunks)
    patches.set(Peers, "link_up", link_up_and_send)
    patches.set(outbox, "Beacon", None)


# --- proposals -------------------------------------------------------------------------------------------


@mutant("repeats a compare-and-set that had applied", budget=3000)
def _(patches: Patches) -> None:
    """A primary takes silence for a refusal: it forgets a proposal that was not answered and makes others."""
    original = Membership.manage

    def manage(self, now_ns):
        opened = self.opened
        if opened is not None and now_ns >= opened.resend_ns:
            self.opened = None
            if self.joiner is not None and self.joiner.counted:
                self._abort_join("no answer", now_ns)
            self._copy.role = Role.PRIMARY
            return
        original(self, now_ns)

    patches.set(Membership, "manage", manage)


# --- identity --------------------------------------------------------------------------------------------


def empty_in_place_of(host: Host, now_ns: int, shard: int, entry: ShardEntry) -> None:
    """Take a place in a configuration with an empty copy."""
    current = host._replicas.begin(shard, 0, now_ns)
    current.role = Role.JOINING
    current.adopt(now_ns, 0, entry)


@mutant("takes a restarted actor for its predecessor", flagged=True)
def _(patches: Patches) -> None:
    """⚑ Configurations name places: whoever stands there now counts as having the copy."""
    original = Host._configuration_changed

    def configuration_changed(self, now_ns, wall_us, shard, entry):
        context = self._context
        actors = context.map.actors
        members = tuple(
            context.incarnation if member in actors and actors[member].slot == context.slot else member
            for member in entry.members
        )
        if members != entry.members and context.current.get(context.slot) == context.incarnation:
            entry = msgspec.structs.replace(entry, primary=members[0], backups=members[1:])
            if self._replicas.by_shard[shard] is None:
                empty_in_place_of(self, now_ns, shard, entry)
                return
        original(self, now_ns, wall_us, shard, entry)

    patches.set(Host, "_configuration_changed", configuration_changed)


@mutant("throws away a whole copy whose sender has left", budget=300, plan=HEARS_LATE)
def _(patches: Patches) -> None:
    """A joiner that hears late that it was added counts its copy as none, since who sent it is no member."""
    original = Host._configuration_changed

    def configuration_changed(self, now_ns, wall_us, shard, entry):
        current = self._replicas.by_shard[shard]
        if (
            current is not None
            and current.receiver is not None
            and current.primary_incarnation not in entry.members
        ):
            current.receiver.complete = False
        original(self, now_ns, wall_us, shard, entry)

    patches.set(Host, "_configuration_changed", configuration_changed)


@mutant("waits for a primary that is known dead", budget=3000)
def _(patches: Patches) -> None:
    """An actor that was joining keeps waiting, so a shard that it should begin anew never begins."""
    original = Host._drop_if_abandoned

    def drop_if_abandoned(self, current, now_ns):
        if current.primary_incarnation not in self._context.dead:
            original(self, current, now_ns)

    patches.set(Host, "_drop_if_abandoned", drop_if_abandoned)
