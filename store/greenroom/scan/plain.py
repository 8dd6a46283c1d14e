"""Plain data, read by decoders in C: whether data is plain, and its contents."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from greenroom.scan.bounds import (
    DEPTH_MAX,
    HEADS_MAX,
    ITEMS_MAX,
    OPENINGS_MAX,
    PLAIN_ITEMS_MAX,
    MalformedError,
    Tally,
    ext_fits,
    too_many,
)

CONTAINERS = frozenset({dict, list})
INT_KEYED_BYTES_MAX = 1024
"""Up to this size a dict of int keys made to collide is built in less than a tenth of a millisecond."""
PLAIN_LEVELS = 5
_OPENINGS = frozenset((*range(0x80, 0xA0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9), *range(0xDC, 0xE0)))
_NO_OPENINGS = bytes(byte for byte in range(256) if byte not in _OPENINGS)
_HEADS = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))
_NO_HEADS = bytes(byte for byte in range(256) if byte not in _HEADS)

# Without bytes: no decoder of msgspec takes them beside str.
_SCALARS = None | bool | int | float | str


def _unrolled(key: Any, scalars: Any) -> Callable[[bytes], Any]:
    level = scalars
    for _ in range(PLAIN_LEVELS):
        level = scalars | list[level] | dict[key, level]  # type: ignore[valid-type]  # made for the decoder
    return msgspec.msgpack.Decoder(level).decode


_encode = msgspec.msgpack.Encoder().encode
# First what is the most usual and the fastest: keys that are str, and no extensions.
read_bare = _unrolled(str, _SCALARS)
SMALL = (read_bare, _unrolled(str | int, _SCALARS | Ext))
TEXT_KEYED = (read_bare, _unrolled(str, _SCALARS | Ext))

NOT_PLAIN: Any = object()
"""Stands for data that is left to the walk."""


def plain_value(data: bytes, depth: int) -> Any:
    """Return the contents of `data` if it is plain, or small and plain except for int keys; else NOT_PLAIN.

    `depth` is the number of levels above. Extensions are returned as `Ext`. Raises MalformedError if it holds
    too much.
    """
    if len(data) > OPENINGS_MAX and not fits(data, Tally()):
        return NOT_PLAIN
    value = plain_read(SMALL if len(data) <= INT_KEYED_BYTES_MAX else TEXT_KEYED, data, depth)
    if len(data) > PLAIN_ITEMS_MAX and value is not NOT_PLAIN:
        _check_numbers(value, PLAIN_ITEMS_MAX)
    return value


def openings(data: bytes) -> int:
    """Count the bytes that could begin a container or an extension, including bytes of other values."""
    return len(data.translate(None, _NO_OPENINGS))


def fits(data: bytes, tally: Tally) -> bool:
    """Whether it is safe to decode this data, by a count of bytes that bounds what the decoder builds.

    It builds everything before anything else can be counted: a million empty lists took half a second.
    """
    tally.bytes += len(data)
    if tally.bytes <= OPENINGS_MAX:
        return True
    tally.openings += openings(data)
    if tally.openings > OPENINGS_MAX:
        return False
    return len(data) <= HEADS_MAX or len(data.translate(None, _NO_HEADS)) <= HEADS_MAX


def bare_value(data: bytes) -> Any:
    """Return the contents of `data` if it is plain, not large, and without extensions; else NOT_PLAIN."""
    if len(data) > OPENINGS_MAX and (len(data) > PLAIN_ITEMS_MAX or openings(data) > OPENINGS_MAX):
        return NOT_PLAIN
    try:
        value = read_bare(data)
    except msgspec.MsgspecError:
        return NOT_PLAIN
    return value if _encode(value) == data else NOT_PLAIN


def small_value(data: bytes) -> Any:
    """Return the contents of plain data that is small enough to have int keys; else NOT_PLAIN."""
    try:
        value = read_bare(data)
    except msgspec.MsgspecError:
        return plain_read(SMALL, data, 0)
    return value if _encode(value) == data else NOT_PLAIN


def plain_read(
    decoders: tuple[Callable[[bytes], Any], Callable[[bytes], Any]], data: bytes, depth: int
) -> Any:
    """Return the contents of `data` if a decoder accepts it, else NOT_PLAIN. The second knows extensions."""
    if depth > DEPTH_MAX - PLAIN_LEVELS:
        return NOT_PLAIN
    try:
        value = decoders[0](data)
    except msgspec.ValidationError:
        return _with_ext(decoders[1], data)
    except msgspec.MsgspecError:
        return NOT_PLAIN
    return value if _encode(value) == data else NOT_PLAIN


def _with_ext(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        value = decode(data)
    except msgspec.MsgspecError:
        return NOT_PLAIN
    return value if _encode(value) == data and _ext_are_plain(value) else NOT_PLAIN


def _ext_are_plain(value: Any) -> bool:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is dict:
            waiting.extend(value.values())
        elif kind is list:
            waiting.extend(value)
        elif kind is Ext and not ext_fits(value.code, len(value.data)):
            return False
    return True


def check_numbers(value: Any, data: bytes) -> None:
    """Raise MalformedError if a value of which every part is plain, encoded as `data`, holds too much."""
    _check_numbers(value, PLAIN_ITEMS_MAX if fits(data, Tally()) else ITEMS_MAX)


def _check_numbers(value: Any, most: int) -> None:
    items, levels = measured(value)
    if levels > PLAIN_LEVELS:
        most = ITEMS_MAX
    if items > most:
        raise MalformedError(too_many(most))


def measured(value: Any) -> tuple[int, int]:
    """Return the numbers of items and of levels; if there are too many, any number beyond the bound."""
    items = levels = 0
    level = [value] if type(value) in CONTAINERS else []
    while level:
        levels += 1
        items += sum(map(len, level))
        if items > PLAIN_ITEMS_MAX:
            break
        level = [
            item
            for node in level
            if node
            for item in (node.values() if type(node) is dict else node)
            if type(item) in CONTAINERS
        ]
    return items, levels
