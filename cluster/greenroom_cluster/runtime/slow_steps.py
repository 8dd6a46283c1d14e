"""Logging of steps that kept all clients waiting: their messages, kinds, senders and sizes."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import structlog

from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.shard.inputs import ClientRequests, HostInput, PeerMessages

SLOW_NS = 100_000_000

_encode = msgspec.msgpack.Encoder().encode
_limited_log = LimitedLog(structlog.get_logger(__name__))


def log_slow_step(event: HostInput, spent_ns: int, sender: str, charged: Sequence[str]) -> None:
    """Log a step. `sender` sent its messages; `charged` are the clients whose requests it carried out."""
    messages: Sequence[object] = ()
    if isinstance(event, ClientRequests):
        messages = event.requests
    elif isinstance(event, PeerMessages):
        messages = event.messages
    _limited_log.warning(
        "slow_step",
        input=type(event).__name__,
        milliseconds=spent_ns // 1_000_000,
        kinds=dict(Counter(type(message).__name__ for message in messages)),
        # Sizes are not known before; encoding the messages again costs little beside such a step.
        bytes=sum(len(_encode(message)) for message in messages),
        sender=sender,
        charged=list(charged),
    )
