"""Memory rules: no actor's replicas hold more than their bound, and their accounts are right.

What is held is counted anew from sessions and answers themselves, every so many steps since that takes long.
What is logged and not applied yet is beside the bound: it may make room, and is gone in a moment. A copy that
was found on disk is kept whatever the bound; how much it takes shows only once it is applied.
"""

from collections import Counter

from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.pairs.outgoing import UNTOLD_BYTES
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.log import RECORD_OVERHEAD_BYTES
from greenroom_cluster.shard.state.memory import (
    ANONYMOUS_BYTES,
    CLIENT_BYTES,
    EXPIRY_BYTES,
    NAMED_BYTES,
    REPLY_BYTES,
    SESSION_BYTES,
    USER_BYTES,
)
from greenroom_cluster.shard.state.namespaces import name_behind
from greenroom_cluster.shard.state.records import KeptReply
from greenroom_cluster.shard.state.stored import decoded
from simulations.cluster.actors import ActorProcess
from simulations.cluster.stage import Stage

LOOK_EVERY = 20
_READ_TIMES = 8
"""Small sessions, and replies and clients, take more in a table than in a snapshot, by this at most."""


def held_bytes(replica: Replica) -> int:
    """Return what a replica holds, counted anew: sessions and kept replies."""
    table = replica.table
    size = EXPIRY_BYTES * table.expiry.entries
    nobodys_bytes = 0 if table.anonymous is None else ANONYMOUS_BYTES
    for key, stored in table.sessions.items():
        size += NAMED_BYTES if len(key) > DIGEST_BYTES else 0
        place_bytes = nobodys_bytes if decoded(stored).user_id is None else USER_BYTES
        size += SESSION_BYTES + len(stored) + place_bytes
    size += CLIENT_BYTES * len(table.clients)
    return size + sum(map(_reply_bytes, table.clients.replies()))


def _reply_bytes(kept: KeptReply) -> int:
    return REPLY_BYTES + len(getattr(kept.reply, "state", b""))


def kept_bytes(replica: Replica) -> dict[bytes, int]:
    """Return what is kept for the clients of each namespace other than `default`, counted anew."""
    sizes: Counter[bytes] = Counter()
    for client, known in replica.table.clients.by_id.items():
        sizes[name_behind(client)] += CLIENT_BYTES + sum(map(_reply_bytes, known.replies.values()))
    return {name: size for name, size in sizes.items() if name}


class MemoryOracle:
    """Watches the actors of one world in which memory has a bound."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._steps: dict[ActorProcess, int] = {}
        # By actor, how much more what it found may take than was kept for that.
        self._found: dict[ActorProcess, int] = {}

    def after(self, actor: ActorProcess) -> None:
        """Judge the state after a step, now and then."""
        steps = self._steps.get(actor, 0)
        self._steps[actor] = steps + 1
        if not steps:
            self._found[actor] = _may_take(actor, self._stage.plan.clients)
        if steps % LOOK_EVERY or self._stage.healing:
            return
        replicas = [replica for replica in actor.host.replicas if replica is not None] + actor.host.found
        held = sum(map(held_bytes, replicas))
        bound = actor.host_settings.memory_bytes_max
        # Bounds are so small here that what others add before they are told of this one's room shows.
        untold = sum(
            min(UNTOLD_BYTES, other.host.memory.spare_bytes)
            for other in self._stage.actors.values()
            if other is not actor
        )
        if held > bound + untold + self._found[actor]:
            self._stage.violate("memory", f"{actor.name} holds {held} bytes, and may hold {bound}")
        used = sum(replica.log.charged_bytes for replica in replicas) + held
        used += sum(replica.held_bytes for replica in replicas)
        booked = actor.host.memory.used_bytes
        if used != booked:
            self._stage.violate("memory", f"{actor.name} holds {used} bytes, its books say {booked}")
        for replica in replicas:
            kept, named = kept_bytes(replica), replica.table.clients.named_bytes
            if kept != named:
                self._stage.violate("memory", f"{actor.name} keeps {kept} bytes, its books say {named}")


def _may_take(actor: ActorProcess, clients: int) -> int:
    """Return how much more than its bound an actor may hold because of what it found on its disk."""
    logs = [replica.log for replica in actor.host.found]
    records = sum(log.appended + 1 - log.first for log in logs)
    unread = sum(len(part) for log in logs for part in log.unread)
    missed = actor.host.memory.spare_bytes if logs else 0
    replies = CLIENT_BYTES * clients * len(logs)
    return missed + replies + records * (USER_BYTES + RECORD_OVERHEAD_BYTES) + unread * _READ_TIMES
