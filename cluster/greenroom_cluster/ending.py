"""Ends all sessions of a user, as an operator orders it."""

from collections.abc import Iterable, Sequence

import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.errors import UnavailableError, UsageError
from greenroom.tls.demands import node_of
from greenroom_cluster.questions import (
    INSPECT_SECONDS,
    UntrustedError,
    ask_once,
    fetch_map,
    hello_as_admin,
)
from greenroom_cluster.runtime.proving import Keys, trust_of
from greenroom_cluster.shard.clients.operations import EndSessions

SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_SHARDS_PER_MESSAGE = 256


async def end_sessions_at(
    addresses: Sequence[str],
    cluster: str,
    user_id: str,
    namespace: str,
    seconds: float = SECONDS,
    *,
    credentials: Keys | None,
) -> int:
    """End all sessions of a user in a namespace; return how many were ended.

    Raises what `fetch_map` does, and UnavailableError if some shards do not answer within `seconds`: those of
    the user that are there may remain.
    """
    ended, reason = 0, ""
    deadline = trio.current_time() + seconds
    cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    left = set(range(cluster_map.shard_count))
    while True:
        for incarnation, shards in _batches(cluster_map, left):
            actor = cluster_map.actors.get(incarnation)
            if actor is None:
                reason = f"shard {shards[0]} has no primary"
                continue
            hello = hello_as_admin(cluster, incarnation, wire.ROLE_OPERATOR)
            order = EndSessions(1, namespace, user_id, shards)
            trust = trust_of(credentials, node_of(cluster, actor.node))
            try:
                answer = await ask_once(actor.address, hello, order, INSPECT_SECONDS, trust)
            except UntrustedError:  # no repeat changes that
                raise
            except UnavailableError as error:
                reason = str(error)
                continue
            match answer:
                case wire.Counted(counts=counts):
                    ended += sum(count for _, count in counts)
                    left -= {shard for shard, _ in counts}
                case wire.Failed(detail=detail):
                    raise UsageError(f"nothing more was ended: {detail}")
                case _:
                    reason = getattr(answer, "reason", type(answer).__name__)
        if not left:
            return ended
        if trio.current_time() >= deadline:
            raise UnavailableError(
                f"{ended} sessions were ended, and {len(left)} shards did not answer within {seconds:g} s "
                f"({reason}); order it again"
            )
        await trio.sleep(_PAUSE_SECONDS)
        cluster_map = await fetch_map(addresses, cluster, credentials=credentials)


def _batches(cluster_map: ClusterMap, shards: Iterable[int]) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return the incarnations of primaries, each with as many of its shards as one message names."""
    found = cluster_map.by_primary(sorted(shards))
    return [
        (incarnation, tuple(those[first : first + _SHARDS_PER_MESSAGE]))
        for incarnation, those in found.items()
        for first in range(0, len(those), _SHARDS_PER_MESSAGE)
    ]
