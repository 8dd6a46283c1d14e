# ruff: noqa: ANN001, ANN002, ANN202, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of namespaces: what one tenant does reaches another."""

from msgspec import structs

from greenroom import wire
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard import disk_log
from greenroom_cluster.shard.clients import requests
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.limits import namespace_growth
from greenroom_cluster.shard.limits.paging import LongCommand
from greenroom_cluster.shard.roles.releases import Releases
from greenroom_cluster.shard.state import namespaces, quotas, table
from greenroom_cluster.shard.state.ages import AgeOrder
from greenroom_cluster.shard.state.expiry import ExpiryIndex
from simulations.mutants.durable import CUT_IN_INTERVAL
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import EVICTING
from simulations.plans.plan import Action, Fault, Plan

TENANTS_CUT_IN_INTERVAL = structs.replace(CUT_IN_INTERVAL, tenants=True)
"""Two tenants share a cluster in which all machines lose power, with syncs a second apart."""

FULL_TENANT = Plan(
    seed=0,
    nodes=3,
    shards=2,
    clients=4,
    callers=16,
    sessions=160,
    tenants=True,
    quota_sessions=16,
    quota_bytes=1 << 20,
    seconds=5.0,
    actions=tuple(
        Action(
            number % 16,
            12.0 + number * 7 % 11,
            ("create", "create", "update", "create", "patch", "delete", "create")[number % 7],
            number * 29 % 160,
        )
        for number in range(2400)
    ),
    faults=(
        Fault(1200, "kill actor", "primary of shard 0", 1.0),
        Fault(2600, "cut between", "node of primary of shard 1", 0.5, other="node of backup of shard 1"),
        Fault(3400, "kill actor", "primary of shard 1", 1.0),
    ),
)
"""A tenant creates more sessions than its quota allows, beside another; actors are lost meanwhile."""

EVICTING_TENANT = structs.replace(FULL_TENANT, evicts=True, page_max=4)
"""The same, but its oldest sessions are evicted, none of which has a user."""


FORMER_NODE = Plan(
    seed=0,
    nodes=3,
    replicas=3,
    shards=4,
    clients=4,
    callers=8,
    sessions=32,
    tenants=True,
    former_nodes=1,
    seconds=6.0,
    actions=tuple(
        Action(
            number % 8,
            12.0 + number * 7 % 11,
            ("create", "get", "update", "delete_by_user", "delete", "patch")[(number % 8 + number // 8) % 6],
            number * 11 % 32,
        )
        for number in range(1600)
    ),
    faults=(
        Fault(900, "kill actor", "primary of shard 0", 1.0),
        Fault(1800, "cut between", "node n0", 0.6, other="node n2"),
        Fault(2600, "kill actor", "actor n2/0", 0.5),
        Fault(3400, "kill actor", "primary of shard 1", 1.0),
        Fault(4200, "add node", "coordinator"),
    ),
)
"""One node of three is of a former release, while a tenant comes and goes; actors are lost and move."""


@mutant("takes the namespace of nobody for writes")
def _(patches: Patches) -> None:
    """What a tenant writes is taken as it came, in `default`, whose connection did not ask for it."""
    original = namespaces.enclosed

    def enclosed(request, namespace):
        return original(request, namespace) if isinstance(request, wire.Get | wire.ListByUser) else request

    patches.set(requests, "enclosed", enclosed)


@mutant("reads in the namespace of nobody")
def _(patches: Patches) -> None:
    """A read names the digest alone."""
    original = namespaces.enclosed

    def enclosed(request, namespace):
        return request if isinstance(request, wire.Get) else original(request, namespace)

    patches.set(requests, "enclosed", enclosed)


@mutant("finds the users of all namespaces under one name")
def _(patches: Patches) -> None:
    """The index by user knows users by their ids."""
    original = namespaces.keyed

    def keyed(request, namespace):
        found = original(request, namespace)
        by_user = isinstance(request, wire.DeleteByUser | wire.ListByUser)
        return structs.replace(found, user_id=request.user_id) if by_user else found

    patches.set(namespaces, "keyed", keyed)
    patches.set(table, "owner_of", lambda _key, user_id: user_id)


@mutant("leaves the namespace out of snapshots")
def _(patches: Patches) -> None:
    """A joiner gets the sessions of all tenants under their digests."""
    original = SnapshotSender.__init__

    def init(self, *arguments):
        original(self, *arguments)
        self._digests = [key[:DIGEST_BYTES] for key in self._digests]

    patches.set(SnapshotSender, "__init__", init)


@mutant("logs pages of a log-out in the namespace of nobody")
def _(patches: Patches) -> None:
    """The pages end the sessions that `default` has under these digests."""
    patches.set(LongCommand, "_logged", lambda _self, command: command)


@mutant("expires what another tenant has under the digest")
def _(patches: Patches) -> None:
    """What has expired is logged by its digest."""
    original = ExpiryIndex.due

    def due(self, time_us, expiry, looks):
        found, looked = original(self, time_us, expiry, looks)
        return [key[:DIGEST_BYTES] for key in found], looked

    patches.set(ExpiryIndex, "due", due)


@mutant("takes a log-out in a namespace for a write", budget=50, plan=TENANTS_CUT_IN_INTERVAL)
def _(patches: Patches) -> None:
    """With interval, it is confirmed once it is written."""
    patches.set(disk_log, "_MAY_END", disk_log._ENDINGS)


# --- quotas ----------------------------------------------------------------------------------------------


@mutant("counts only what is applied against a quota", budget=20, plan=FULL_TENANT)
def _(patches: Patches) -> None:
    """Nothing is reserved for what is logged."""
    patches.set(namespace_growth._Reserved, "add", lambda _self, _sequence, _sessions, _size: None)


@mutant("counts no namespace in what a snapshot brings", budget=20, plan=FULL_TENANT)
def _(patches: Patches) -> None:
    """Who joined and takes over lets each namespace begin at nothing."""
    original = table.SessionTable.install

    def install(self, sessions, time_us):
        original(self, sessions, time_us)
        self.usage = namespaces.Usage()

    patches.set(table.SessionTable, "install", install)


@mutant("keeps the quota of one namespace for all", budget=20, plan=FULL_TENANT)
def _(patches: Patches) -> None:
    """Who is not named in the quotas has that of another."""
    original = quotas.Quotas.part

    def part(self, namespace):
        return original(self, namespace) or next(iter(self._parts.values()), None)

    def of(self, namespace):
        return self._of_cluster.get(namespace) or next(iter(self._of_cluster.values()))

    patches.set(quotas.Quotas, "part", part)
    patches.set(quotas.Quotas, "of", of)


@mutant("refuses a namespace at half of its quota", budget=20, plan=FULL_TENANT)
def _(patches: Patches) -> None:
    """What is logged counts twice, and so does what is there."""
    original = table.SessionTable.used_by

    def used_by(self, namespace):
        sessions, size = original(self, namespace)
        return 2 * sessions, 2 * size

    patches.set(table.SessionTable, "used_by", used_by)


@mutant("reserves nothing for sessions, only for bytes", budget=20, plan=FULL_TENANT)
def _(patches: Patches) -> None:
    """A burst of creates gets past the number of sessions."""
    original = namespace_growth._brought
    patches.set(namespace_growth, "_brought", lambda command: (0, original(command)[1]))


@mutant("evicts the oldest of all namespaces for a quota", budget=20, plan=EVICTING_TENANT)
def _(patches: Patches) -> None:
    """The namespace that is at its quota takes the room of another."""
    patches.set(AgeOrder, "oldest", lambda self, _namespace: iter(self))


# --- peers of a former release ---------------------------------------------------------------------------


@mutant("logs for a former release what it cannot read", budget=20, plan=FORMER_NODE)
def _(patches: Patches) -> None:
    """What recipients can read is not asked before a write."""
    patches.set(Releases, "objection", lambda _self: "")


@mutant("copies to a former release what it cannot read", budget=20, plan=FORMER_NODE)
def _(patches: Patches) -> None:
    """What a joiner can read is not asked before it gets a copy."""
    patches.set(Releases, "objection_to", lambda _self, _joiner, _transfer: "")


@mutant("evicts what a former release keeps", budget=20, plan=structs.replace(EVICTING, former_nodes=1))
def _(patches: Patches) -> None:
    """What recipients can read is not asked before an eviction."""
    patches.set(Releases, "may_evict", lambda _self: True)
