"""Data that is not plain, read by a loop in Python: the verdict on any bytes, and their contents."""

from struct import Struct
from typing import Any, TypeAlias

import msgspec
from msgspec.msgpack import Ext

from greenroom.scan.bounds import (
    DEPTH_MAX,
    EXT_BYTES,
    EXT_FROZENSET,
    EXT_SET,
    EXT_TUPLE,
    MalformedError,
    NewerError,
    RefusedError,
    Tally,
    check_hashed,
    ext_fits,
)
from greenroom.wire import Path

_COLLECTIONS = frozenset({EXT_SET, EXT_FROZENSET, EXT_TUPLE})

_STR, _BIN, _LIST, _MAP, _EXT = range(5)
# By first byte: kind, how many bytes the length takes, and the least for which this form is the shortest.
_HEADERS = {
    0xD9: (_STR, 1, 1 << 5),
    0xDA: (_STR, 2, 1 << 8),
    0xDB: (_STR, 4, 1 << 16),
    0xC4: (_BIN, 1, 0),
    0xC5: (_BIN, 2, 1 << 8),
    0xC6: (_BIN, 4, 1 << 16),
    0xDC: (_LIST, 2, 1 << 4),
    0xDD: (_LIST, 4, 1 << 16),
    0xDE: (_MAP, 2, 1 << 4),
    0xDF: (_MAP, 4, 1 << 16),
    0xC7: (_EXT, 1, 0),
    0xC8: (_EXT, 2, 1 << 8),
    0xC9: (_EXT, 4, 1 << 16),
}
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
# By first byte: between which bytes an int stands that has no shorter form.
_INTS = {
    0xCC: (b"\x80", b"\xff"),
    0xCD: (b"\x01\x00", b"\xff" * 2),
    0xCE: (b"\x00\x01\x00\x00", b"\xff" * 4),
    0xCF: (b"\x00\x00\x00\x01\x00\x00\x00\x00", b"\xff" * 8),
    0xD0: (b"\x80", b"\xdf"),
    0xD1: (b"\x80\x00", b"\xff\x7f"),
    0xD2: (b"\x80\x00\x00\x00", b"\xff\xff\x7f\xff"),
    0xD3: (b"\x80" + b"\x00" * 7, b"\xff\xff\xff\xff\x7f\xff\xff\xff"),
}
_decode = msgspec.msgpack.Decoder().decode
_float = Struct(">d").unpack_from
# Values of one byte: None, False, True, small ints.
_SINGLE = {first: _decode(bytes((first,))) for first in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))}


_Container: TypeAlias = tuple[Any, int, Any, int]
"""A container, how many of its items are still to come, the latest key, and how many keys are ints."""


def walked(data: bytes, depth: int, tally: Tally) -> Any:
    """Return the contents of `data`, which is `depth` levels below the top, int keys as their encoding.

    Raises MalformedError.
    """
    waiting: list[_Container] = []
    try:
        root, end = _items(data, depth, tally, waiting)
    except RefusedError as error:
        reason, newer = str(error), type(error) is NewerError
    except IndexError:
        reason, newer = _CUT, False
    else:
        if end == len(data):
            return root
        reason, newer = _CUT if end > len(data) else "more bytes follow", False
    raise MalformedError(reason, _path(waiting), newer=newer, walked_items=tally.items)


def _items(data: bytes, depth: int, tally: Tally, waiting: list[_Container]) -> tuple[Any, int]:
    """Return the first value of `data`, and where it ends; if this raises, `waiting` says where it was."""
    # The container that is being filled is kept apart: a session has thousands at most, each with few items.
    top: list[Any] = []
    node: Any = top
    left, mapping, key, ints, position = 1, False, None, 0, 0
    try:
        while left or waiting:
            if not left:
                node, left, key, ints = waiting.pop()
                mapping = type(node) is dict
                continue
            left -= 1
            if mapping:
                key = None
                key, position = _key(data, position)
                if type(key) is bytes:
                    ints += 1
                    check_hashed(ints)
                if key in node:
                    raise RefusedError("a dict has this key twice")  # noqa: TRY301  a call for each key costs more
            first = data[position]
            if first in _SINGLE:
                item, count, position = _SINGLE[first], -1, position + 1
            else:
                item, count, position = _value(data, position, depth + len(waiting), tally)
                if count >= 0:
                    tally.add_items(count)
                    _check_level(depth + len(waiting) + 1)
            if mapping:
                node[key] = item
            else:
                node.append(item)
            if count > 0:
                waiting.append((node, left, key, ints))
                node, left, mapping, key, ints = item, count, type(item) is dict, None, 0
    except (RefusedError, IndexError):
        waiting.append((node, left, key, ints))
        raise
    return top[0], position


def _check_level(level: int) -> None:
    if level > DEPTH_MAX:
        raise RefusedError(f"nesting beyond {DEPTH_MAX} levels")


_CUT = "it ends too early"


def _path(waiting: list[_Container]) -> Path:
    """Return the keys and indexes that lead to the place where a walk stopped."""
    path: list[str | int] = []
    for node, _, key, _ in waiting[1:]:
        if type(node) is list:
            # All but the last have the item already that leads on.
            path.append(len(node) - (node is not waiting[-1][0]))
        elif key is not None:
            path.append(key if type(key) is str else _decode(key))
    return tuple(path)


def _key(data: bytes, position: int) -> tuple[str | bytes, int]:
    """Return a key of a map, an int as its encoding, and where it ends."""
    first = data[position]
    if 0xA0 <= first <= 0xBF:
        start = position + 1
        end = start + first - 0xA0
    elif first <= 0x7F or first >= 0xE0:
        end = position + 1
        return data[position:end], end
    elif first in _INTS:
        return _int(data, position)
    else:
        kind, start, size, _ = _header(data, position)
        if kind != _STR:
            raise RefusedError("a key of a map is neither str nor int")
        end = start + size
    return _text(data[start:end]), end


def _value(data: bytes, position: int, depth: int, tally: Tally) -> tuple[Any, int, int]:
    """Return an item, how many items it waits for (-1: it is complete), and where to go on.

    Not for those of `_SINGLE`.
    """
    first = data[position]
    if first <= 0x8F:
        return {}, first - 0x80, position + 1
    if first <= 0x9F:
        return [], first - 0x90, position + 1
    if first <= 0xBF:
        end = position + first - 0x9F
        return _text(data[position + 1 : end]), -1, end
    if first == 0xCB:
        if position + 9 > len(data):
            raise RefusedError(_CUT)
        return _float(data, position + 1)[0], -1, position + 9
    if first in _INTS:
        item, end = _int(data, position)
        return _decode(item), -1, end
    kind, start, size, code = _header(data, position)
    end = start + size
    content = data[start:end]
    if kind == _MAP:
        return {}, size, start
    if kind == _LIST:
        return [], size, start
    if kind == _EXT:
        _check_ext(data, code, start, end, depth, tally)
        return Ext(code, content), -1, end
    return _text(content) if kind == _STR else content, -1, end


def _int(data: bytes, position: int) -> tuple[bytes, int]:
    least, most = _INTS[data[position]]
    end = position + 1 + len(least)
    item = data[position:end]
    if len(item) <= len(least):
        raise RefusedError(_CUT)
    if not least <= item[1:] <= most:
        raise RefusedError(_LONG)
    return item, end


_LONG = "a value does not stand in its shortest form"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    raise RefusedError("a str is not valid UTF-8")


def _header(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Return kind, where the content starts, its size in bytes or items, and the code of an extension."""
    first = data[position]
    if first in _FIXED_EXT:
        return _EXT, position + 2, _FIXED_EXT[first], data[position + 1]
    if first not in _HEADERS:
        raise RefusedError("a float of 32 bits is not kept" if first == 0xCA else "malformed msgpack")
    kind, width, least = _HEADERS[first]
    start = position + 1 + width
    if start > len(data):
        raise RefusedError(_CUT)
    size = int.from_bytes(data[position + 1 : start], "big")
    if size < least or (kind == _EXT and size in _FIXED_EXT.values()):
        raise RefusedError(_LONG)
    if kind == _EXT:
        return kind, start + 1, size, data[start]
    return kind, start, size, 0


def _check_ext(data: bytes, code: int, start: int, end: int, depth: int, tally: Tally) -> None:
    """Raise RefusedError unless this is an extension of the codec with a payload that it may have.

    In a set: hashable elements only, and no more than are safe to hash. Those that a tuple or a frozenset
    there has all count: their hashes can be made equal, and comparing takes as long as they are.
    """
    if code not in _COLLECTIONS:
        _check_scalar_ext(code, end - start)
        return
    if code == EXT_TUPLE:
        raise RefusedError("a tuple stands in sets only")
    # What is left of each collection: how many items, where it ends, and how many of its elements count.
    stack: list[list[int]] = []
    position = start
    opened: int | None = end
    while True:
        if opened is not None:
            position, size = _list_header(data, position)
            stack.append([size, opened, 0])
            tally.add_items(size)
            _check_level(depth + len(stack))
        while stack and not stack[-1][0]:
            if stack.pop()[1] != position:
                raise RefusedError("a collection does not end where its extension does")
        if not stack:
            return
        top = stack[-1]
        top[0] -= 1
        opened, position, counts = _element(data, position)
        if counts or len(stack) > 1:
            top[2] += 1
            check_hashed(top[2])


def _list_header(data: bytes, position: int) -> tuple[int, int]:
    """Return where the elements of a collection start, and how many there are."""
    first = data[position]
    if 0x90 <= first <= 0x9F:
        return position + 1, first - 0x90
    kind, start, size, _ = _header(data, position)
    if kind != _LIST:
        raise RefusedError("a collection holds no list of elements")
    return start, size


def _element(data: bytes, position: int) -> tuple[int | None, int, bool]:
    """Return where a collection inside ends, None if it is none, where to go on, and whether it counts."""
    first = data[position]
    if first in _SINGLE:
        return None, position + 1, True
    if 0xA0 <= first <= 0xBF:
        end = position + first - 0x9F
        _text(data[position + 1 : end])
        return None, end, False
    if first == 0xCB:
        return None, position + 9, True
    if first in _INTS:
        return None, _int(data, position)[1], True
    if first <= 0x9F:
        raise RefusedError(_UNHASHABLE)
    kind, start, size, code = _header(data, position)
    end = start + size
    if kind == _EXT:
        if code in (EXT_FROZENSET, EXT_TUPLE):
            return end, start, True
        if code == EXT_SET:
            raise RefusedError(_UNHASHABLE)
        _check_scalar_ext(code, size)
        return None, end, True
    if kind == _STR:
        _text(data[start:end])
    elif kind != _BIN:
        raise RefusedError(_UNHASHABLE)
    return None, end, False


_UNHASHABLE = "a set holds a dict, a list or a set"


def _check_scalar_ext(code: int, size: int) -> None:
    if code not in EXT_BYTES:
        raise NewerError(
            f"a value is of kind {code}, which this version of greenroom does not know; upgrade it to the "
            "version that wrote the value"
        )
    if not ext_fits(code, size):
        raise RefusedError(f"a value of kind {code} takes {size} bytes, which none does")
