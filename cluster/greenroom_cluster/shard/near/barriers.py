"""What waits while holders may still show a session as it was before a change."""

from typing import NamedTuple, TypeAlias

from greenroom import wire
from greenroom.ending_messages import SessionEnded
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.near.leases import Holder

Origin: TypeAlias = int | Gather
Read: TypeAlias = wire.Get | wire.ListByUser


class Renewal(NamedTuple):
    """What a patch has stored under `key`; it is held again for the connection on which that came."""

    request_id: int
    key: bytes
    stored: bytes
    left_us: int


class Delayed:
    """A reply, or an ending, that shows a new state; it leaves when none of its `barriers` is open."""

    __slots__ = ("barriers", "origin", "renewal", "reply")

    def __init__(
        self,
        origin: Origin,
        reply: wire.EncodedReply | SessionEnded,
        renewal: Renewal | None,
        barriers: int,
    ) -> None:
        self.origin = origin
        self.reply = reply
        self.renewal = renewal
        self.barriers = barriers


class Barrier:
    """A change that `holders` may not know of, before `until_ns` at the latest.

    Meanwhile who reads one of the keys in `olds` is shown what stood there before, None: nothing. `reads`
    wait, since that has expired.
    """

    __slots__ = ("began_ns", "delayed", "holders", "olds", "reads", "until_ns")

    def __init__(self, now_ns: int, olds: dict[bytes, bytes | None]) -> None:
        self.began_ns = now_ns
        self.olds = olds
        self.holders: dict[Holder, int] = {}
        self.until_ns = now_ns
        self.delayed: list[Delayed] = []
        self.reads: list[tuple[Origin, wire.Get]] = []
