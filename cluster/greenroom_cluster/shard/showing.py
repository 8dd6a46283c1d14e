"""What an actor's directory knows of configurations, for a coordinator that has lost its map."""

from collections.abc import Iterable

from greenroom_cluster.coordination.messages import SHOWN_MAX, KnownShard, ShowDirectory
from greenroom_cluster.disk.entries import Configured, Proposed
from greenroom_cluster.disk.replay import DiskCopy
from greenroom_cluster.shard.disk_log import Stable


def shown(slot: str, stable: Stable) -> tuple[ShowDirectory, ...]:
    """Return what the directory of a slot knows, as it was opened, in messages."""
    known = [each for copy in stable.copies.values() for each in _known(copy)]
    configured = [copy.configuration for copy in stable.copies.values() if copy.configuration is not None]
    newest = max(configured, key=lambda each: (each.lineage, each.version), default=None)
    holders = {each.holder for each in configured if each.holder}
    openers = tuple(sorted({*stable.openers, *holders}))
    identity, shards = (b"", 0) if newest is None else (newest.cluster, newest.shards)
    held = tuple(shard for shard, copy in stable.copies.items() if copy.configuration is None)
    first = range(0, len(known), SHOWN_MAX) or (0,)
    return tuple(
        ShowDirectory(
            slot,
            stable.directory,
            stable.mark,
            openers,
            identity,
            shards,
            tuple(known[start : start + SHOWN_MAX]),
            held,
            more=start + SHOWN_MAX < len(known),
        )
        for start in first
    )


def _known(copy: DiskCopy) -> Iterable[KnownShard]:
    configuration = copy.configuration
    if configuration is None:
        return
    proposed = {
        member: slot
        for proposal in copy.proposals.values()
        if proposal.epoch >= configuration.epoch
        for member, slot in _members(proposal)
        if member in proposal.others
    }
    yield KnownShard(
        copy.shard,
        configuration.lineage,
        configuration.version,
        configuration.epoch,
        configuration.nonce,
        _members(configuration),
        tuple(proposed.items()),
    )


def _members(change: Configured | Proposed) -> tuple[tuple[bytes, str], ...]:
    """Return the members with their slots, "" where the directory does not know one."""
    members, slots = change.members, change.slots
    return tuple(zip(members, slots or ("",) * len(members), strict=True))
