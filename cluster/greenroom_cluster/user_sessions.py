"""The sessions of a user, which an operator lists and ends. No session's id is known here: handles are."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec
import trio

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.errors import UnavailableError, UsageError
from greenroom.fanout import count_of, newest_first
from greenroom.fields import LIST_LIMIT_MAX
from greenroom.identities import DEFAULT_NAMESPACE
from greenroom.ids import parse_handle
from greenroom.replies import session_info
from greenroom.routing import Router
from greenroom.sessions import SessionInfo
from greenroom.tls.demands import node_of
from greenroom_cluster.inspection import inspect_actors
from greenroom_cluster.questions import (
    INSPECT_SECONDS,
    UntrustedError,
    ask_once,
    fetch_map,
    hello_as_admin,
)
from greenroom_cluster.runtime.proving import Keys, trust_of
from greenroom_cluster.shard.clients.operations import EndSession, EndSessions, ListSessions, OfUser

SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_SHARDS_PER_MESSAGE = 256


class OtherNamespaces(msgspec.Struct, frozen=True):
    """The namespaces besides `default` that have sessions, and the primaries that did not tell of theirs."""

    names: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


async def other_namespaces_at(
    addresses: Sequence[str], cluster: str, *, credentials: Keys | None
) -> OtherNamespaces:
    """Ask which namespaces there are besides `default`. Raises what `fetch_map` does."""
    cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    return others_among(cluster_map, await inspect_actors(cluster_map, credentials=credentials))


def others_among(cluster_map: ClusterMap, inspections: Mapping[bytes, wire.Inspection]) -> OtherNamespaces:
    """Combine what actors tell. A primary that tells nothing is silent, "none" one that is not there."""
    used = {each.namespace for told in inspections.values() for each in told.namespaces if each.sessions}
    silent = {entry.primary for entry in cluster_map.shards} - inspections.keys()
    slots = {cluster_map.actors[each].slot if each in cluster_map.actors else "none" for each in silent}
    return OtherNamespaces(tuple(sorted(used - {DEFAULT_NAMESPACE})), tuple(sorted(slots)))


async def list_sessions_at(
    addresses: Sequence[str],
    cluster: str,
    user_id: str,
    namespace: str,
    seconds: float = SECONDS,
    *,
    credentials: Keys | None,
) -> list[SessionInfo]:
    """Return the live sessions of a user in a namespace, the newest first, at most LIST_LIMIT_MAX.

    Raises what `fetch_map` does, and UnavailableError if some shards do not answer within `seconds`.
    """
    found: list[wire.SessionHandle] = []

    def take(answer: wire.ServerMessage, _: tuple[int, ...]) -> Collection[int] | None:
        if not isinstance(answer, wire.Listing):
            return None
        found.extend(answer.sessions)
        return answer.shards

    def order(shards: tuple[int, ...]) -> OfUser:
        return ListSessions(1, namespace, user_id, LIST_LIMIT_MAX, shards)

    left, reason = await _ask_shards(addresses, cluster, _every_shard, order, take, seconds, credentials)
    if left:
        raise UnavailableError(
            f"{left} shards did not answer within {seconds:g} s ({reason}), so not all of the sessions are "
            "known; ask again"
        )
    return [session_info(user_id, each) for each in newest_first(found, LIST_LIMIT_MAX)]


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
    ended = 0

    def take(answer: wire.ServerMessage, _: tuple[int, ...]) -> Collection[int] | None:
        nonlocal ended
        if not isinstance(answer, wire.Counted):
            return None
        ended += count_of(answer)
        return {shard for shard, _ in answer.counts}

    def order(shards: tuple[int, ...]) -> OfUser:
        return EndSessions(1, namespace, user_id, shards)

    left, reason = await _ask_shards(addresses, cluster, _every_shard, order, take, seconds, credentials)
    if left:
        raise UnavailableError(
            f"{ended} sessions were ended, and {left} shards did not answer within {seconds:g} s "
            f"({reason}); order it again"
        )
    return ended


async def end_session_at(
    addresses: Sequence[str],
    cluster: str,
    user_id: str,
    namespace: str,
    handle: str,
    seconds: float = SECONDS,
    *,
    credentials: Keys | None,
) -> None:
    """End the session of a user that lists name so; absent is fine.

    Raises what `fetch_map` does, UsageError if this is no handle, and UnavailableError if its shard does not
    answer within `seconds`: the session may remain.
    """
    point, listed = parse_handle(handle)

    def take(answer: wire.ServerMessage, asked: tuple[int, ...]) -> Collection[int] | None:
        return asked if isinstance(answer, wire.Written) else None

    def order(_: tuple[int, ...]) -> OfUser:
        return EndSession(1, namespace, user_id, point, listed)

    def its_own(router: Router) -> Collection[int]:
        return (router.shard_of(point),)

    left, reason = await _ask_shards(addresses, cluster, its_own, order, take, seconds, credentials)
    if left:
        raise UnavailableError(
            f"the session may remain: its shard did not answer within {seconds:g} s ({reason}); order it "
            "again"
        )


def _every_shard(router: Router) -> Collection[int]:
    return range(router.map.shard_count)


async def _ask_shards(
    addresses: Sequence[str],
    cluster: str,
    which: Callable[[Router], Collection[int]],
    order: Callable[[tuple[int, ...]], OfUser],
    take: Callable[[wire.ServerMessage, tuple[int, ...]], Collection[int] | None],
    seconds: float,
    credentials: Keys | None,
) -> tuple[int, str]:
    """Give the primaries of some shards an order for these, until `take` has got the answers of all.

    `take` gets an answer and the shards of its order; it returns those that are answered, None if that is no
    answer. Return how many shards are left after `seconds`, and why.
    """
    reason = ""
    deadline = trio.current_time() + seconds
    router = Router(await fetch_map(addresses, cluster, credentials=credentials))
    left = set(which(router))
    while True:
        for asked in _batches(router.map, left):
            actor = router.primaries[asked[0]]
            if actor is None:
                reason = router.why_no_primary(asked[0])
                continue
            answer = await _ask(cluster, actor, order(asked), credentials)
            answered = None if isinstance(answer, str) else take(answer, asked)
            if answered is None:
                reason = _reason(answer)
            else:
                left.difference_update(answered)
        if not left or trio.current_time() >= deadline:
            return len(left), reason
        await trio.sleep(_PAUSE_SECONDS)
        router = Router(await fetch_map(addresses, cluster, credentials=credentials))


async def _ask(
    cluster: str, actor: ActorEntry, order: OfUser, credentials: Keys | None
) -> wire.ServerMessage | str:
    """Return an actor's answer, or why it gave none. Raises what no repeat changes."""
    hello = hello_as_admin(cluster, actor.incarnation, wire.ROLE_OPERATOR)
    trust = trust_of(credentials, node_of(cluster, actor.node))
    try:
        answer = await ask_once(actor.address, hello, order, INSPECT_SECONDS, trust)
    except UntrustedError:
        raise
    except UnavailableError as error:
        return str(error)
    if isinstance(answer, wire.Failed):
        raise UsageError(f"nothing more was done: {answer.detail}")
    return answer


def _reason(answer: wire.ServerMessage | str) -> str:
    return answer if isinstance(answer, str) else str(getattr(answer, "reason", type(answer).__name__))


def _batches(cluster_map: ClusterMap, shards: Iterable[int]) -> list[tuple[int, ...]]:
    """Return these shards by their primary, each time as many as one message names."""
    return [
        tuple(those[first : first + _SHARDS_PER_MESSAGE])
        for those in cluster_map.by_primary(sorted(shards)).values()
        for first in range(0, len(those), _SHARDS_PER_MESSAGE)
    ]
