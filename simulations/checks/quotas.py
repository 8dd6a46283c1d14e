"""Rules of quotas: no namespace has more in a shard than its part, or is refused or evicted for another.

What a namespace has is counted anew from the keys of sessions. What is logged and not applied yet is taken
from the log, with the sizes of whole records, so that who is refused in vain shows only if there was ample
room.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from greenroom import wire
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.quotas import Quota
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.effects import HostEffect, ReplyToClient
from greenroom_cluster.shard.limits.namespace_growth import HEADING_BYTES
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.records import Evict, Record, Within
from simulations.cluster.actors import ActorProcess
from simulations.cluster.stage import TENANT, Stage

SAID = "is at its quota"
_SUFFIX = TENANT.encode()


def _used(replica: Replica) -> tuple[int, int]:
    """Return the sessions and bytes of the tenant, counted anew."""
    sizes = [len(stored) for key, stored in replica.table.sessions.items() if key[DIGEST_BYTES:] == _SUFFIX]
    return len(sizes), sum(sizes)


def _added(records: Iterable[Record]) -> tuple[int, int]:
    """Return the most that records add to the tenant's namespace."""
    within = [each.command for each in records if isinstance(each.command, Within)]
    creates = sum(isinstance(each.command, wire.Create) for each in within)
    return creates, sum(map(record_bytes, within))


class QuotaOracle:
    """Watches the actors of one world in which the tenant has a quota."""

    def __init__(self, stage: Stage, part: Quota) -> None:
        self._stage = stage
        self._part = part
        self._most: dict[int, tuple[int, int]] = {}
        self._namespaces: dict[tuple[ActorProcess, int], str] = {}

    def before(self, actor: ActorProcess, event: ins.HostInput) -> None:
        """Note what the tenant has, with all that is logged for it, before a step."""
        if isinstance(event, ins.ClientRequests):
            self._namespaces[actor, event.connection] = event.namespace
        self._most.clear()
        for replica in actor.host.replicas:
            if replica is not None and replica.primary is not None:
                waiting = replica.log.records(replica.committed, replica.log.appended)
                self._most[replica.shard] = _sum(_used(replica), _added(waiting))

    def after(self, actor: ActorProcess, event: ins.HostInput, effects: Sequence[HostEffect]) -> None:
        """Judge what a step has done."""
        for replica in actor.host.replicas:
            if replica is None:
                continue
            sessions, size = _used(replica)
            slack = HEADING_BYTES * sessions
            if sessions > self._part.sessions or size > self._part.stored_bytes + slack:
                self._stage.violate(
                    "quota",
                    f"{actor.name} holds {sessions} sessions of {size} bytes of the tenant in shard "
                    f"{replica.shard}, which may have {self._part.sessions} of {self._part.stored_bytes}",
                )
            if replica.primary is not None and not self._stage.plan.memory_bytes:
                self._check_evicted(actor, replica)
        for effect in effects:
            if isinstance(effect, ReplyToClient) and SAID in _text(effect.message):
                self._check_refusal(actor, event, effect)

    def _check_evicted(self, actor: ActorProcess, replica: Replica) -> None:
        """Where memory has no bound, what is evicted is evicted for the quota."""
        for record in replica.log.fresh:  # type: ignore[attr-defined]  # the oracles' own kind of log
            command = record.command
            if isinstance(command, Evict) and any(key[DIGEST_BYTES:] != _SUFFIX for key in command.digests):
                self._stage.violate("quota", f"{actor.name} evicts others than the tenant for its quota")

    def _check_refusal(self, actor: ActorProcess, event: ins.HostInput, effect: ReplyToClient) -> None:
        if self._namespaces.get((actor, effect.connection)) != TENANT:
            self._stage.violate("quota", f"{actor.name} refuses another than the tenant for its quota")
        self._stage.network.happened["refused for a quota"] += 1
        request = _asked(event, effect)
        if request is None:
            return
        shard = self._stage.shard_at(request.point)
        replica = actor.host.replicas[shard]
        if replica is None or shard not in self._most:
            return
        fresh = _added(replica.log.fresh)  # type: ignore[attr-defined]  # as above
        own = int(isinstance(request, wire.Create)), record_bytes(request)
        sessions, size = _sum(_sum(self._most[shard], fresh), own)
        if sessions <= self._part.sessions and size <= self._part.stored_bytes:
            self._stage.violate("quota", f"{actor.name} refuses the tenant in shard {shard}, which has room")


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _text(message: Any) -> str:
    text = getattr(message, "detail", "") or getattr(message, "reason", "")
    return text if isinstance(text, str) else ""  # an end has a number for its reason


def _asked(event: ins.HostInput, effect: ReplyToClient) -> Any:
    """Return what a reply refuses, if it came in this step."""
    if not isinstance(event, ins.ClientRequests) or event.connection != effect.connection:
        return None
    number = getattr(effect.message, "request_id", 0)
    return next((each for each in event.requests if getattr(each, "request_id", 0) == number), None)
