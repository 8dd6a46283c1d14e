"""Operations that every shard must answer.

Each primary gets the request for its shards, always under the operation's one request id. For shards that a
reply leaves out, the request is sent again, by the newest map at that time. At most one attempt is unanswered
on one connection, so a reply always identifies its attempt.
"""

from greenroom import wire
from greenroom.dialog import suspects
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.dialog.operations import Gathering, stamp
from greenroom.errors import RemoteProtocolError


def ask(operation: Gathering, lanes: Lanes, board: Switchboard, ledger: Ledger, now_ns: int) -> None:
    """Ask every reachable primary for those of its shards that are not being asked already."""
    if not lanes.by_shard:
        return
    if operation.remaining is None:
        operation.remaining = set(range(len(lanes.by_shard)))
    free = operation.remaining.difference(*operation.asked.values())
    groups: dict[Lane, list[int]] = {}
    for shard in sorted(free):
        lane = lanes.by_shard[shard]
        if lane is not None:
            groups.setdefault(lane, []).append(shard)
    for primary, shards in groups.items():
        lane = suspects.lane_for(operation, primary)
        link = lane.link
        if link is None or not lane.ready:
            lane.waiting[operation.request.request_id] = operation
            lanes.connect(lane, now_ns)
        elif link in operation.asked:
            continue
        elif lane.main is not None and suspects.is_busy(link, ledger):
            lane.waiting[operation.request.request_id] = operation
        else:
            operation.asked[link] = tuple(shards)
            link.alone = operation.request.request_id
            stamp(operation, ledger.low, now_ns)
            board.write(link, request_for(operation.request, tuple(shards)))


def request_for(request: wire.Fanout, shards: tuple[int, ...]) -> wire.Fanout:
    """Return the request for these shards."""
    match request:
        case wire.Clean():
            return wire.Clean(request.request_id, request.low, request.age_ms, shards)
        case wire.DeleteByUser():
            return wire.DeleteByUser(
                request.request_id, request.low, request.age_ms, request.user_id, request.keep, shards
            )
        case _:
            return wire.ListByUser(request.request_id, request.user_id, request.limit, shards)


def take_reply(operation: Gathering, link: Link, reply: wire.Counted | wire.Listing) -> bool:
    """Take the reply of the shards that it names; return whether these are all shards asked.

    A shard that is left out may still have the request in its log: its actor may have appended it and then
    ceased to be primary. Raises RemoteProtocolError if `reply` names shards that were not asked.
    """
    asked = operation.asked[link]
    counts = reply.counts if isinstance(reply, wire.Counted) else ()
    named = {shard for shard, _ in counts} if isinstance(reply, wire.Counted) else set(reply.shards)
    if not named.issubset(asked):
        raise RemoteProtocolError(f"a reply to {operation.kind.name} names shards that were not asked")
    del operation.asked[link]
    remaining = operation.remaining if operation.remaining is not None else set()
    fresh = named & remaining
    if isinstance(reply, wire.Counted):
        operation.counted += sum(count for shard, count in counts if shard in fresh)
    else:
        operation.sessions.extend(reply.sessions)
    remaining -= named
    operation.answered = operation.answered or bool(named)
    complete = len(named) == len(asked)
    operation.maybe = operation.maybe or (operation.kind.mutation and not complete)
    return complete
