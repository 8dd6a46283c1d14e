"""Reads every session of a running cluster, shard by shard, each as it stands at one moment."""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.errors import ProtocolError, UnavailableError, UsageError
from greenroom.framing import messages_decoder
from greenroom.negotiation import hello
from greenroom.tls.demands import node_of
from greenroom_cluster.backups.files import Part
from greenroom_cluster.links.handshake import NOT_ALLOWED
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.proving import Keys, trust_of
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.runtime.tasks import one_for_all, open_tasks
from greenroom_cluster.shard.clients.operations import CopyShard, Freeze, Operation, ShardPart

SHARD_SECONDS = 60.0
"""How long a shard is asked for again that changes hands, or whose actor cannot be reached."""
_REPLY_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_ACTORS_AT_ONCE = 4

_decoder = messages_decoder(wire.ServerMessage | ShardPart)


class _NotNowError(Exception):
    """The shard is to be asked for again, perhaps at another actor."""


async def copy_shards(
    addresses: Sequence[str],
    cluster: str,
    take: Callable[[Part], None],
    *,
    seconds: float = SHARD_SECONDS,
    freeze: bool = False,
    credentials: Keys | None,
    cluster_map: ClusterMap | None = None,
) -> None:
    """Read every shard and hand its parts to `take`, those of one shard together and in order.

    Several actors are read at once, but `take` is given a shard only when that was read to its end, so that
    one whose primary is lost on the way is not there twice. With `freeze`, no actor gives a copy before it
    has stopped serving clients: one may have started anew since `freeze_actors`. `cluster_map` is one that
    has just been fetched.

    Raises UnavailableError, naming the shard, if one cannot be read within so many seconds; UsageError for
    another cluster, or for actors of a release that cannot be copied; and what `take` does.
    """
    if cluster_map is None:
        cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    limiter = trio.CapacityLimiter(_ACTORS_AT_ONCE)
    with one_for_all():
        async with open_tasks() as tasks:
            for shards in cluster_map.by_primary(range(cluster_map.shard_count)).values():
                tasks.start_soon(
                    _copy_some, addresses, cluster, shards, take, seconds, limiter, freeze, credentials
                )


async def freeze_actors(addresses: Sequence[str], cluster: str, credentials: Keys | None) -> None:
    """Have no actor serve a client any more; those that cannot be reached serve none either, or end.

    Raises UnavailableError if no node can be reached.
    """
    cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    with one_for_all():
        async with open_tasks() as tasks:
            for actor in cluster_map.actors.values():
                # One that was replaced may yet serve.
                if actor.state != "dead":
                    tasks.start_soon(_freeze, actor, cluster, credentials)


async def _freeze(actor: ActorEntry, cluster: str, credentials: Keys | None) -> None:
    try:
        async with _connected(actor, cluster, credentials) as connection:
            await _ask(connection, Freeze(1))
    except _NotNowError:
        return


async def _copy_some(
    addresses: Sequence[str],
    cluster: str,
    shards: Iterable[int],
    take: Callable[[Part], None],
    seconds: float,
    limiter: trio.CapacityLimiter,
    freeze: bool,  # noqa: FBT001  tasks take no keywords
    credentials: Keys | None,
) -> None:
    """Read some shards, by and by, from wherever they are."""
    left = list(shards)
    async with limiter:
        deadline = trio.current_time() + seconds
        while left:
            reason = ""
            try:
                cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
                for incarnation, here in cluster_map.by_primary(left).items():
                    actor = cluster_map.actors.get(incarnation)
                    if actor is None:
                        reason = "it has no primary"
                        continue
                    async with _connected(actor, cluster, credentials) as connection:
                        if freeze:
                            await _ask(connection, Freeze(1))
                        for shard in here:
                            for part in await _copied(connection, shard):
                                take(part)
                            left.remove(shard)
                            deadline = trio.current_time() + seconds
            except _NotNowError as error:
                reason = str(error)
            except UnavailableError as error:
                reason = str(error)
            if left and trio.current_time() > deadline:
                raise UnavailableError(
                    f"shard {left[0]} could not be copied within {seconds} s ({reason}); see "
                    "`greenroom status`"
                )
            if left:
                await trio.sleep(_PAUSE_SECONDS)


async def _copied(connection: FramedConnection, shard: int) -> list[Part]:
    """Return the parts of a shard."""
    parts: list[Part] = []
    while True:
        reply = await _ask(connection, CopyShard(len(parts) + 1, shard, len(parts)))
        if isinstance(reply, wire.Overloaded):
            raise _NotNowError(reply.reason)
        if isinstance(reply, wire.Failed):
            raise _NotNowError(reply.detail)
        if not isinstance(reply, ShardPart):
            raise _NotNowError("its actor gave another answer")
        parts.append(Part(shard, reply.epoch, reply.sequence, reply.sessions))
        if reply.last:
            return parts


async def _ask(connection: FramedConnection, operation: Operation) -> object:
    try:
        with trio.fail_after(_REPLY_SECONDS):
            connection.send([operation])
            return (await connection.receive())[0]
    except (trio.TooSlowError, ConnectionEndedError, ProtocolError) as error:
        raise _NotNowError(str(error) or f"no answer within {_REPLY_SECONDS} s") from None


@asynccontextmanager
async def _connected(
    actor: ActorEntry, cluster: str, credentials: Keys | None
) -> AsyncIterator[FramedConnection]:
    """Open a connection to an actor as an operator."""
    trust = trust_of(credentials, node_of(cluster, actor.node))
    mine = hello(cluster, wire.ROLE_OPERATOR, os.urandom(16), actor.incarnation)
    async with open_tasks() as tasks:
        try:
            connection, theirs = await dial(actor.address, mine, tasks, trust=trust)
        except (DialFailedError, ProtocolError) as error:
            if isinstance(error, DialFailedError) and error.code == NOT_ALLOWED.code:
                raise UsageError(
                    f"actor {actor.slot} lets only an operator copy its shards: give one's certificate with "
                    "--tls-cert and --tls-key (GREENROOM_TLS_CERT, GREENROOM_TLS_KEY)"
                ) from None
            raise _NotNowError(str(error)) from None
        try:
            if wire.FEATURE_COPIES not in theirs.features:
                raise UsageError(
                    f"actor {actor.slot} is of a release whose shards cannot be copied: upgrade its node"
                )
            connection.speak(_decoder)
            yield connection
        finally:
            connection.close()
            tasks.cancel_scope.cancel()
