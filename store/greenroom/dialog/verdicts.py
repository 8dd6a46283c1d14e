"""Errors for operations that end without a reply: the truth, and what to do.

An error says "not applied" only if no attempt can have been applied. Everything else is "unknown".
"""

from greenroom.dialog.lanes import Lanes
from greenroom.dialog.links import Link
from greenroom.dialog.map_follower import MapFollower
from greenroom.dialog.operations import AnyOperation, Gathering, Kind
from greenroom.dialog.suspects import BREAKS_ALONE_MAX, BREAKS_MAX, lane_for
from greenroom.errors import GreenroomError, OutcomeUnknownError, UnavailableError, UsageError
from greenroom.loopback import SAFE_PLAINTEXT
from greenroom.routing import Router

REASONS_MAX = 8
"""The most reasons that one message names for an operation on all shards."""


def failure(operation: AnyOperation, why: str, seconds: float, *, has_map: bool) -> GreenroomError:
    """Return the truthful error for an operation that ends without a reply.

    `why` is the occasion, `has_map` whether any node was ever reached.
    """
    kind = operation.kind
    if kind.mutation and operation.uncertain:
        return outcome_unknown(kind, why, seconds)
    obstacle = f": {operation.reason}" if operation.reason else ""
    applied = "was not applied" if kind.mutation else "failed"
    advice = (
        "If it goes on, `greenroom health` tells what the cluster waits for; if the cluster needs longer "
        f"than deadline_seconds={seconds:g}, raise that option of the store."
    )
    if not has_map:
        advice = "Check that the nodes run, and that the store was given their addresses."
    return UnavailableError(f"{kind.name} {applied}; {why}{obstacle}. Repeating it is safe. {advice}")


def refused(operation: AnyOperation, detail: str, seconds: float) -> GreenroomError:
    """Return the error for a read, or a request to all shards, that an actor refused for good."""
    kind = operation.kind
    # Actors that were asked for other shards may have applied their part.
    if isinstance(operation, Gathering) and kind.mutation and operation.uncertain:
        return outcome_unknown(kind, f"one actor refused its part: {detail}", seconds)
    return UsageError(f"the cluster refused {kind.name} for good: {detail}")


def mistaken(kind: Kind, follower: MapFollower, cluster: str) -> UsageError:
    """Return the error for an operation that no node of the cluster will ever get."""
    return UsageError(f"{kind.name} was not sent: {mistake(follower, cluster)}")


def mistake(follower: MapFollower, cluster: str) -> str:
    """Return why no node of the cluster serves this store, and what to change."""
    why = follower.why_no_map
    if follower.wants_certificate:
        return (
            f"the nodes do not serve this app without a certificate or token that they trust ({why}). Give "
            "the store a greenrooms:// URL with tls_cert, tls_key and tls_ca, or token_file and tls_ca, "
            f"those of an app of the cluster {cluster!r}; one that is revoked needs a successor"
        )
    if follower.wants_tls:
        return f"{why}. {SAFE_PLAINTEXT}"
    if follower.wants_secret:
        return (
            f"this app and the nodes do not know one secret ({why}). Run both as one user of this host, or "
            "give the store the option secret_file, the path that the nodes have as --secret-file"
        )
    return (
        f"what listens at these addresses does not serve cluster={cluster!r} ({why}). Give the store the "
        "addresses of nodes, their --listen, and the name that the cluster was started with: "
        "greenroom://host:port/NAME"
    )


def outcome_unknown(kind: Kind, why: str, seconds: float) -> OutcomeUnknownError:
    """Return the error for a mutation that may or may not have been applied."""
    if kind.harmless:
        advice = "Repeating it is harmless: do that until it succeeds."
    else:
        advice = "Repeating it may apply it twice or fail on its own effect: read the session first."
    return OutcomeUnknownError(
        f"{kind.name} was sent and may have been applied, now or later; {why}. {advice} "
        f"If the cluster needs longer than deadline_seconds={seconds:g}, raise that option of the store.",
        harmless_to_repeat=kind.harmless,
    )


def given_up(operation: AnyOperation, link: Link, reason: str, seconds: float) -> GreenroomError:
    """Return the error for an operation over which the connection to its actor breaks each time."""
    why = (
        f"the actor at {link.address} broke off {BREAKS_MAX} connections when it was asked this, the last "
        f"{BREAKS_ALONE_MAX} with nothing else on them ({reason})"
    )
    if operation.kind.mutation:
        return outcome_unknown(operation.kind, why, seconds)
    return UnavailableError(
        f"{operation.kind.name} failed; {why}. Other requests go on. Repeating it is safe, but helps only if "
        "something has changed: the log of that actor says what it could not do, and if the versions of the "
        "store and of the cluster differ, upgrade the older one."
    )


def obstacle(operation: AnyOperation, follower: MapFollower, lanes: Lanes) -> str:
    """Say what an operation waits for."""
    router = follower.router
    if router is None:
        return f"no node has sent the cluster map ({follower.why_no_map})"
    if isinstance(operation, Gathering):
        return operation.reason or _missing(operation, router, lanes)
    if operation.link is not None:
        silent = f"the primary at {operation.link.address} did not answer"
        # A repeat of what was refused may be on its way just when the deadline comes.
        return f"{silent}; the attempt before: {operation.reason}" if operation.reason else silent
    if operation.retry_ns:
        return operation.reason
    lane = lanes.lane_of(operation.request.point)
    if lane is None:
        return router.why_no_primary(router.shard_of(operation.request.point))
    return lane_for(operation, lane).why_waiting()


def _missing(operation: Gathering, router: Router, lanes: Lanes) -> str:
    """Say how many shards have not answered, and why."""
    shards = sorted(operation.remaining or range(len(lanes.by_shard)))
    asked = {shard: link for link, those in operation.asked.items() for shard in those}
    reasons: dict[str, None] = {}
    for shard in shards:
        lane = lanes.by_shard[shard]
        if shard in asked:
            reason = f"the primary at {asked[shard].address} did not answer"
        elif lane is None:
            reason = router.why_no_primary(shard)
        elif lane.link in operation.asked:  # on one connection at most one attempt is unanswered
            reason = f"the primary at {lane.actor.address} did not answer"
        else:
            reason = lane.why_waiting()
        reasons.setdefault(reason)
    told = "; ".join(list(reasons)[:REASONS_MAX])
    more = f"; and {len(reasons) - REASONS_MAX} more reasons" if len(reasons) > REASONS_MAX else ""
    return f"{len(shards)} of {len(lanes.by_shard)} shards did not answer ({told}{more})"
