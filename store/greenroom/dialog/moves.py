"""Which unanswered operations a newer map moves to other connections."""

from greenroom.dialog import redirects
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Link
from greenroom.dialog.operations import Gathering, Operation


def sort_moved(
    ledger: Ledger, lanes: Lanes, version: int, *, recounted: bool
) -> tuple[list[Operation], list[Link]]:
    """Return the operations to dispatch by the new map, and the links to reset first.

    A mutation that is unanswered on a connection to a former primary might still arrive there after its
    repeat elsewhere. So that connection is reset first, and everything else on it is repeated too.
    """
    moved: list[Operation] = []
    aborted: dict[Link, None] = {}
    for operation in ledger.pending.values():
        if isinstance(operation, Gathering):
            for link, shards in operation.asked.items():
                root = None if link.lane is None else link.lane.root
                if recounted or any(lanes.by_shard[shard] is not root for shard in shards):
                    aborted[link] = None
        elif _must_move(operation, lanes, version):
            if operation.link is not None and operation.kind.mutation:
                aborted[operation.link] = None
            else:
                moved.append(operation)
    return [each for each in moved if each.link not in aborted], list(aborted)


def _must_move(operation: Operation, lanes: Lanes, version: int) -> bool:
    lane = lanes.lane_of(operation.request.point)
    if operation.link is not None:
        return operation.link.lane is None or operation.link.lane.root is not lane
    if operation.retry_ns:
        return redirects.is_settled(operation, lane, version)
    return True
