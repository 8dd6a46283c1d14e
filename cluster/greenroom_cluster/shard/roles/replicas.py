"""The replicas of one actor."""

from greenroom_cluster.shard.recovery import Recovery
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.role import Role


class Replicas:
    """The replicas by shard, None where the actor has none; empty before the first map."""

    __slots__ = ("by_shard", "recovery", "resources")

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.recovery = Recovery(resources)
        self.by_shard: list[Replica | None] = []

    def get(self, shard: int) -> Replica | None:
        """Return the replica of a shard; None if there is none, or no such shard."""
        return self.by_shard[shard] if 0 <= shard < len(self.by_shard) else None

    def role_of(self, shard: int) -> Role:
        """Return the role of this actor in a shard."""
        replica = self.get(shard)
        return Role.NONE if replica is None else replica.role

    def begin(self, shard: int, epoch: int, now_ns: int) -> Replica:
        """Begin a new replica of a shard; what was found of it on disk is given up."""
        self.recovery.give_up(shard)
        replica = self.by_shard[shard] = Replica(self.resources, shard, epoch, now_ns)
        return replica

    def close(self, shard: int, now_ns: int, reason: str) -> None:
        """Give up the replica of a shard, if there is one."""
        replica = self.by_shard[shard]
        if replica is not None:
            replica.close(now_ns, reason)
            self.by_shard[shard] = None
