"""Clients that speak version 3 of the protocol: requests that are refused by now, and replies they know.

Version 4 is what came after it that such a client does not understand. It takes a `Failed(FULL)` for a broken
protocol; `Overloaded` promises the same, that nothing was applied, and it repeats until there is room. And it
may name more paths in one patch than are taken now. That must not end its connection, over which it would
repeat the patch again and again together with all else that is unanswered there.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from greenroom import wire
from greenroom.framing import messages_decoder
from greenroom.negotiation import Agreement

_NOT_FORMER = 4

_TOO_MANY = f"a patch names at most {wire.PATHS_MAX} paths of 1 to {wire.PATH_KEYS_MAX} keys"


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    tag: int
    request_id: int


_frame = messages_decoder(msgspec.Raw)
_head = msgspec.msgpack.Decoder(_Head)
_PATCHES = frozenset(kind.__struct_config__.tag for kind in (wire.Patch, wire.Rotate))


class FormerDecoder:
    """Decodes the requests of such a client; what is refused comes out as its answer, a `Failed`."""

    def __init__(self, kinds: Any) -> None:
        self._strict = messages_decoder(kinds)
        self._one = msgspec.msgpack.Decoder(kinds)

    def decode(self, payload: bytes) -> list[Any]:
        """Return the messages of a frame. Raises as the decoder of this release does."""
        try:
            return self._strict.decode(payload)
        except msgspec.ValidationError:
            return [self._message(raw) for raw in _frame.decode(payload)]

    def _message(self, raw: msgspec.Raw) -> Any:
        try:
            return self._one.decode(raw)
        except msgspec.ValidationError:
            head = _head.decode(raw)
            if head.tag not in _PATCHES:
                raise
            return wire.Failed(head.request_id, wire.FailureCode.INVALID, _TOO_MANY)


class Replies(Protocol):
    """Where the replies of one connection go."""

    def send(self, messages: list[Any]) -> None:
        """Send these, in order."""


class FormerClient:
    """Such a client, whose connection takes replies by `send`."""

    def __init__(self, connection: Replies) -> None:
        self._connection = connection

    def send(self, messages: list[Any]) -> None:
        """Send these, translated for such a client."""
        self._connection.send([known(message) for message in messages])

    def refusing(self, handle: Callable[[list[Any]], None]) -> Callable[[list[Any]], None]:
        """Return `handle` for what is asked; what was refused as it was decoded is answered before."""

        def handle_rest(messages: list[Any]) -> None:
            requests, refused = split(messages)
            if refused:
                self._connection.send(refused)
            if requests:
                handle(requests)

        return handle_rest


def is_former(agreement: Agreement) -> bool:
    """Return whether a client with this agreement needs this module."""
    return agreement.version < _NOT_FORMER


def split(messages: Sequence[Any]) -> tuple[list[Any], list[wire.Failed]]:
    """Return the requests among what was decoded, and the answers to those that are refused."""
    refused = [message for message in messages if type(message) is wire.Failed]
    if not refused:
        return list(messages), refused
    return [message for message in messages if type(message) is not wire.Failed], refused


def known(reply: Any) -> Any:
    """Return this reply in a form that such a client knows."""
    if type(reply) is wire.Failed and reply.code == wire.FailureCode.FULL:
        return wire.Overloaded(reply.request_id, reply.detail)
    return reply
