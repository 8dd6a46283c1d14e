"""Asking all actors of a cluster what they report, for an operator."""

from collections.abc import MutableMapping, Sequence

import trio

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.errors import UnavailableError, UsageError
from greenroom.tls.demands import node_of as node_demand
from greenroom_cluster.cluster_status import ClusterStatus, summarize
from greenroom_cluster.questions import (
    INSPECT_SECONDS,
    UntrustedError,
    ask_once,
    fetch_map,
    hello_as_admin,
)
from greenroom_cluster.runtime.proving import Keys, trust_of
from greenroom_cluster.runtime.tasks import open_tasks

_AGAIN_SECONDS = 0.3


async def inspect_actors(
    cluster_map: ClusterMap,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
    untrusted: MutableMapping[bytes, str] | None = None,
) -> dict[bytes, wire.Inspection]:
    """Ask every incarnation that may be running for its replicas; omit those that do not answer.

    `untrusted` is told which of these do so because one side does not trust the other, and why.
    """
    found: dict[bytes, wire.Inspection] = {}

    async def ask(actor: ActorEntry) -> None:
        hello = hello_as_admin(cluster_map.cluster, actor.incarnation)
        trust = trust_of(credentials, node_demand(cluster_map.cluster, actor.node))
        with trio.move_on_after(seconds):
            while True:
                try:
                    answer = await ask_once(actor.address, hello, wire.Inspect(1), seconds, trust)
                except UntrustedError as error:
                    if untrusted is not None:
                        untrusted[actor.incarnation] = str(error)
                    return
                except (UnavailableError, UsageError):  # also of a malformed address in the map
                    return
                if isinstance(answer, wire.Inspection):
                    found[actor.incarnation] = answer
                if not isinstance(answer, wire.Overloaded):
                    return
                await trio.sleep(_AGAIN_SECONDS)  # others look with the same certificate

    async with open_tasks() as nursery:
        for actor in cluster_map.actors.values():
            if actor.state != "dead":
                nursery.start_soon(ask, actor)
    return found


async def inspect_cluster(
    addresses: Sequence[str],
    cluster: str,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
) -> ClusterStatus:
    """Return the state of the cluster. Raises what `fetch_map` does."""
    cluster_map = await fetch_map(addresses, cluster, seconds, credentials=credentials)
    untrusted: dict[bytes, str] = {}
    told = await inspect_actors(cluster_map, seconds, credentials=credentials, untrusted=untrusted)
    return summarize(cluster_map, told, untrusted)


async def drop_record_at(
    addresses: Sequence[str],
    cluster: str,
    shard: int,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
) -> wire.SuspendedRecord:
    """Drop the record at which a shard is suspended, and return what it was.

    Raises what `fetch_map` does, UnavailableError if the shard's primary cannot be reached, UsageError if the
    shard is not suspended or its record cannot be dropped yet.
    """
    cluster_map = await fetch_map(addresses, cluster, seconds, credentials=credentials)
    if not 0 <= shard < cluster_map.shard_count:
        raise UsageError(f"there is no shard {shard}; they are 0 to {cluster_map.shard_count - 1}")
    actor = cluster_map.actors.get(cluster_map.shards[shard].primary)
    if actor is None:
        raise UsageError(f"shard {shard} has no primary, so it is not suspended")
    trust = trust_of(credentials, node_demand(cluster, actor.node))
    inspection = await ask_once(
        actor.address, hello_as_admin(cluster, actor.incarnation), wire.Inspect(1), seconds, trust
    )
    replicas = inspection.replicas if isinstance(inspection, wire.Inspection) else ()
    record = next((each.suspended for each in replicas if each.shard == shard), None)
    if record is None:
        raise UsageError(f"shard {shard} is not suspended on {actor.slot}, its primary: nothing is dropped")
    question = wire.DropRecord(1, shard, record.epoch, record.sequence)
    as_operator = hello_as_admin(cluster, actor.incarnation, wire.ROLE_OPERATOR)
    answer = await ask_once(actor.address, as_operator, question, seconds, trust)
    if isinstance(answer, wire.Failed):
        raise UsageError(f"nothing was dropped: {answer.detail}")
    return record
