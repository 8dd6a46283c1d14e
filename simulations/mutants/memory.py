# ruff: noqa: ANN001, ANN202, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what memory is left, here and at backups."""

import msgspec

from greenroom import wire
from greenroom.negotiation import Agreement
from greenroom_cluster.links import former, handshake
from greenroom_cluster.shard.clients import requests
from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.limits.eviction import Eviction
from greenroom_cluster.shard.limits.growth import Growth
from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.recovery import Recovery
from greenroom_cluster.shard.roles import accepts
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.memory import UNLIMITED_BYTES, Grant, Memory
from greenroom_cluster.shard.state.table import SessionTable
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import EVICTING, FULL_BACKUP, FULL_NEIGHBOURS, OUTGROWN
from simulations.plans.plan import Action, Fault

OUTGROWN_COPY = msgspec.structs.replace(
    OUTGROWN,
    sessions=100,
    memory_bytes=(4_000_000, 40_000),
    actions=tuple(
        Action(number % 6, 15.0 + number * 7 % 11, "get" if 12 <= number <= 200 else "create", number % 100)
        for number in range(700)
    ),
    faults=(Fault(700, "crash node", "node n1", 1.2),),
)
"""The same, and it comes back soon, so that the other one has kept all that it has missed."""


@mutant("ignores what its backup grants", budget=300)
def _(patches: Patches) -> None:
    """A primary logs whatever it has room for itself."""
    original = Outgoing._take_grant

    def take_grant(self, message):
        original(self, message)
        self.room_bytes = self.offered_bytes = UNLIMITED_BYTES

    patches.set(Outgoing, "_take_grant", take_grant)


@mutant("grants each peer all that is free", budget=300, plan=FULL_BACKUP)
def _(patches: Patches) -> None:
    """What one peer may add is not kept free for it."""
    patches.set(Grant, "reserved_bytes", property(lambda self: 0))  # noqa: ARG005
    patches.set(Memory, "shares", property(lambda self: 1))  # noqa: ARG005


@mutant("logs a growth that it refuses", budget=300)
def _(patches: Patches) -> None:
    """The client is told that nothing was written, and the command stands in the log all the same."""
    original, charge = Primary.submit, Growth.charge
    asked = {}

    def submit(self, now_ns, wall_us, origin, client, command):
        asked[id(self.growth)] = self, origin
        original(self, now_ns, wall_us, origin, client, command)

    def charged(self, client, known, command, size, opened):
        found = charge(self, client, known, command, size, opened)
        if isinstance(found, wire.Failed):
            primary, origin = asked[id(self)]
            primary.reply(origin, found)
            return size
        return found

    writes = dict.fromkeys((Role.PRIMARY, Role.HANDING_OVER), submit)
    patches.set(requests, "WRITES", {**accepts.WRITES, **writes})
    patches.set(Growth, "charge", charged)


@mutant("keeps answers for nothing", budget=300)
def _(patches: Patches) -> None:
    """What kept replies hold on to is not counted."""
    patches.set(ClientTable, "charged_bytes", property(lambda self: 0, lambda self, size: None))  # noqa: ARG005


@mutant("takes in a snapshot for which it has no room", budget=300, plan=FULL_NEIGHBOURS)
def _(patches: Patches) -> None:
    """A joiner takes whatever it is sent."""
    patches.set(Memory, "refusal_of_join", lambda self, shard, size, missed=None: None)  # noqa: ARG005


@mutant("offers to go on without saying how much it takes", budget=20, plan=OUTGROWN)
def _(patches: Patches) -> None:
    """A joiner that has a copy on disk goes on with it, however much the shard has grown since."""
    patches.set(Transfer, "measure", lambda self, log: setattr(self, "shard_bytes", 0))  # noqa: ARG005


@mutant("goes on with whatever it has missed", budget=20, plan=OUTGROWN_COPY)
def _(patches: Patches) -> None:
    """A joiner that has a copy on disk takes what it has missed for nothing."""
    patches.set(Recovery, "missed_bytes", lambda self, offer: 0 if offer.continues else None)  # noqa: ARG005


@mutant("evicts the oldest of all", budget=20, plan=EVICTING)
def _(patches: Patches) -> None:
    """Sessions with a user make room like those without one."""

    def fairly(self):
        yield from self._table.sessions

    def evict(self, command):
        for digest in command.digests:
            self._remove(digest)

    patches.set(Eviction, "_fairly", fairly)
    patches.set(SessionTable, "evictable_bytes", property(lambda self: self.stored_bytes))
    patches.set(SessionTable, "_evict", evict)


@mutant("evicts without a record", budget=20, plan=EVICTING)
def _(patches: Patches) -> None:
    """The primary ends sessions by itself, and its backup keeps them."""

    def begin(self, command, freed):  # noqa: ARG001
        for digest in command.digests:
            self._table._remove(digest)
        self._copy.count()

    patches.set(Eviction, "_begin", begin)


# --- stores of a former release --------------------------------------------------------------------------


@mutant("tells a former store that it is full", budget=20, plan=FULL_BACKUP)
def _(patches: Patches) -> None:
    """A store that speaks version 3 gets a failure that this version does not have."""
    patches.set(former, "known", lambda reply: reply)


@mutant("speaks its own version with everybody", budget=20, plan=FULL_BACKUP)
def _(patches: Patches) -> None:
    """A server takes every hello for one of its own release."""
    patches.set(handshake, "agree", lambda ours, _: Agreement(ours.protocol_max))
