"""Who may recover a shard whose members are all dead, from the directories that they left behind.

The heir of a member is the running incarnation in the directory that the member wrote to. Heirs claim: each
says how far the log of the shard goes on its disk. Which log is the longest shows only once all have said it,
so the shard waits for the heirs of all members that kept something, until an operator gives a directory up.
An operator can do so beforehand: after a time members are passed over if one that claims has synced all that
was acknowledged. Whoever is passed over may even be alive: it cannot serve without the member that is dead.
A claim stands while its claimant is up and the shard's epoch is the one that it names; claims are not on
disk, for claimants repeat them. The best one is answered as soon as the last that was awaited has come.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from greenroom.cluster_map import ActorEntry, ShardEntry
from greenroom_cluster.coordination.messages import Proposal

Last: TypeAlias = tuple[int, int]
"""Epoch and number of the last record of a log. The epoch decides: a later one has superseded the tails of
all before."""


def is_known_dead(member: bytes, actors: Mapping[bytes, ActorEntry]) -> bool:
    """Whether that incarnation cannot serve any longer. One that the map does not name was forgotten."""
    actor = actors.get(member)
    return actor is None or actor.state == "dead"


def durable_members(entry: ShardEntry, actors: Mapping[bytes, ActorEntry]) -> Iterator[ActorEntry]:
    """Yield the members that kept the shard in a directory that was not given up, the primary first."""
    for member in entry.members:
        actor = actors.get(member)
        if actor is not None and actor.directory:
            yield actor


def is_heir(incarnation: bytes, entry: ShardEntry, actors: Mapping[bytes, ActorEntry]) -> bool:
    """Whether it runs in the directory of a member."""
    actor = actors.get(incarnation)
    if actor is None or actor.state != "up" or not actor.directory:
        return False
    return any(member.directory == actor.directory for member in durable_members(entry, actors))


def has_all(entry: ShardEntry, actors: Mapping[bytes, ActorEntry], claimants: Iterable[bytes]) -> bool:
    """Whether one of these heirs has all that was acknowledged: its member synced before it answered."""
    directories = {actors[claimant].directory for claimant in claimants}
    return any(
        member.durability == "fsync" and member.directory in directories
        for member in durable_members(entry, actors)
    )


def unclaimed(
    entry: ShardEntry, actors: Mapping[bytes, ActorEntry], claims: Mapping[bytes, Last]
) -> tuple[ActorEntry, ...]:
    """Return the members whose heirs have yet to claim; `claims` are those that stand."""
    directories = {actors[claimant].directory for claimant in claims}
    return tuple(member for member in durable_members(entry, actors) if member.directory not in directories)


def best_claimant(
    entry: ShardEntry, actors: Mapping[bytes, ActorEntry], claims: Mapping[bytes, Last]
) -> bytes | None:
    """Return who claims the longest log; of equal ones the heir of the first member. None: there is none."""
    directories = [member.directory for member in durable_members(entry, actors)]
    ranked = [
        (last, -directories.index(actors[claimant].directory), claimant)
        for claimant, last in claims.items()
        if actors[claimant].directory in directories
    ]
    return max(ranked)[2] if ranked else None


class Claim(msgspec.Struct, frozen=True):
    """A proposal to recover a shard that waits for its answer: from whom, and under what it is answered."""

    claimant: bytes
    proposal: Proposal
    connection: int
    request_id: int


class Recoveries:
    """The claims made to one run of a coordinator, by shard and claimant."""

    def __init__(self) -> None:
        self._claims: dict[int, dict[bytes, Claim]] = {}
        # The epoch at which a shard was first claimed, and when.
        self._since: dict[int, tuple[int, int]] = {}

    def note(self, now_ns: int, claim: Claim) -> None:
        """Note a claim that was not refused, in the place of the claimant's former one."""
        shard, epoch = claim.proposal.shard, claim.proposal.epoch
        self._claims.setdefault(shard, {})[claim.claimant] = claim
        if self._since.get(shard, (-1, 0))[0] != epoch:
            self._since[shard] = (epoch, now_ns)

    def claimed_ns(self, now_ns: int, shard: int, epoch: int) -> int:
        """Return for how long a shard has been claimed at this epoch."""
        since = self._since.get(shard, (-1, 0))
        return now_ns - since[1] if since[0] == epoch else 0

    def drop(self, shard: int, claimant: bytes) -> None:
        """Forget a claim that was answered; its claimant may ask for something else now."""
        self._claims.get(shard, {}).pop(claimant, None)

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that were claimed."""
        return tuple(self._claims)

    def standing(
        self,
        shard: int,
        entry: ShardEntry,
        actors: Mapping[bytes, ActorEntry],
        is_over: Callable[[bytes], bool] = lambda _: False,
    ) -> dict[bytes, Last]:
        """Return what is claimed of a shard; claims that no longer stand are dropped.

        Those of claimants for whom it `is_over` do not count for as long as that is so.
        """
        claims = self._claims.get(shard)
        if claims is None:
            return {}
        standing = {
            claimant: claim
            for claimant, claim in claims.items()
            if claim.proposal.epoch == entry.epoch and is_heir(claimant, entry, actors)
        }
        if standing:
            self._claims[shard] = standing
        else:
            del self._claims[shard]
        return {
            claimant: claim.proposal.last for claimant, claim in standing.items() if not is_over(claimant)
        }

    def best(
        self,
        shards: Iterable[int],
        entries: list[ShardEntry],
        actors: Mapping[bytes, ActorEntry],
        is_over: Callable[[bytes], bool],
    ) -> Iterator[Claim]:
        """Yield the best claim on each of these shards."""
        for shard in shards:
            standing = self.standing(shard, entries[shard], actors, is_over)
            best = best_claimant(entries[shard], actors, standing)
            if best is not None:
                yield self._claims[shard][best]
