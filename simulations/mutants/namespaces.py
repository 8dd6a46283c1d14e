# ruff: noqa: ANN001, ANN002, ANN202  mutants reach into what they break, and are not typed code
"""Mutants of namespaces: what one tenant does reaches another."""

from msgspec import structs

from greenroom import wire
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard import disk_log
from greenroom_cluster.shard.clients import requests
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.limits.paging import LongCommand
from greenroom_cluster.shard.state import namespaces, table
from greenroom_cluster.shard.state.expiry import ExpiryIndex
from simulations.mutants.durable import CUT_IN_INTERVAL
from simulations.mutants.patching import Patches, mutant

TENANTS_CUT_IN_INTERVAL = structs.replace(CUT_IN_INTERVAL, tenants=True)
"""Two tenants share a cluster in which all machines lose power, with syncs a second apart."""


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
    patches.set(disk_log, "_MAY_END", disk_log._ENDINGS)  # noqa: SLF001  that is what it breaks
