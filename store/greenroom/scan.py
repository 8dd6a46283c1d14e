"""What the bytes of session data may be: one scan, without recursion, that everything from outside passes.

Data, values of patches and expectations are read by nobody before they passed: in the facade, in a server
before it logs a command, and again before it applies one. The verdict depends on the bytes alone, never on
the stack below, on the Python version or on what was read before: replicas of a shard must decide alike.

Accepted is msgpack of which every value stands in its shortest form, so that equal keys have equal bytes: a
map on top, keys that are str or int and differ, str in valid UTF-8, lists, None, bool, int, float, str, bytes
and the extensions of `greenroom.codec`. The bounds keep the work of every reader in proportion to the size:
nesting, items in all, and what Python hashes without a secret. A dict of int keys that were chosen for their
hashes is quadratic to build; str and bytes are hashed with a secret.

Most data is plain: keys that are str, no bytes, few levels. A decoder in C reads it, whose type is unrolled
to these levels, and encodes it again. If that gives the same bytes, then keys differ, forms are the shortest
and nothing trails. All else the walk below decides, in Python; so of that there may be less.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

import msgspec
from msgspec.msgpack import Ext

from greenroom.wire import Path, PathValue

DEPTH_MAX = 64
PLAIN_ITEMS_MAX = 100_000
"""Elements of lists and entries of maps, in all, of data that is plain."""
ITEMS_MAX = 16_384
"""Elements of lists and sets and entries of maps, in all, of data that is not."""
HASHED_PER_CONTAINER_MAX = 1024
"""Int keys of one map; elements of one set that are neither str nor bytes."""
HASHED_MAX = 8192
"""Of both in all, with everything in the tuples and frozensets of a set."""
NUMBER_BYTES_MAX = 4096

EXT_INT = 1
EXT_DATETIME = 2
EXT_DATE = 3
EXT_TIME = 4
EXT_TIMEDELTA = 5
EXT_UUID = 6
EXT_DECIMAL = 7
EXT_SET = 8
EXT_FROZENSET = 9
EXT_TUPLE = 10

# The longest zone has a name of some thirty characters.
_EXT_BYTES = {
    EXT_INT: (1, NUMBER_BYTES_MAX),
    EXT_DATETIME: (1, 512),
    EXT_DATE: (1, 16),
    EXT_TIME: (1, 512),
    EXT_TIMEDELTA: (1, 32),
    EXT_UUID: (16, 16),
    EXT_DECIMAL: (1, NUMBER_BYTES_MAX),
}
_CONTAINERS = frozenset({dict, list})
_COLLECTIONS = frozenset({EXT_SET, EXT_FROZENSET, EXT_TUPLE})

# A set of 1025 different ints takes 2,531 bytes: what is smaller than this exceeds no number.
SMALL_BYTES = 2500
# Up to this size a dict of int keys made to collide is built in less than a tenth of a millisecond.
_INT_KEYED_BYTES_MAX = 1024
_PLAIN_LEVELS = 5

# Without bytes: no decoder of msgspec takes them beside str.
_SCALARS = None | bool | int | float | str


def _unrolled(key: Any, scalars: Any) -> Callable[[bytes], Any]:
    level = scalars
    for _ in range(_PLAIN_LEVELS):
        level = scalars | list[level] | dict[key, level]  # type: ignore[valid-type]  # made for the decoder
    return msgspec.msgpack.Decoder(level).decode


_encode = msgspec.msgpack.Encoder().encode
# First what is the most usual and the fastest: keys that are str, and no extensions.
_BARE = _unrolled(str, _SCALARS)
_SMALL = (_BARE, _unrolled(str | int, _SCALARS | Ext))
_TEXT_KEYED = (_BARE, _unrolled(str, _SCALARS | Ext))
_TEXT_MAX = 200


class MalformedError(ValueError):
    """What no session may hold: the reason, and the path to it. The text is the same on every replica.

    `newer` says that only a later version of greenroom can have written it.
    """

    def __init__(self, reason: str, path: Path = (), *, newer: bool = False) -> None:
        super().__init__(f"{reason}, at {path_text(path)}" if path else reason)
        self.reason = reason
        self.path = path
        self.newer = newer


class Tally:
    """What the bounds of a session or of a patch count."""

    __slots__ = ("hashed", "items", "plain_items", "walked")

    def __init__(self) -> None:
        self.plain_items = 0
        self.items = 0
        self.hashed = 0
        self.walked = False

    def add_items(self, count: int) -> None:
        """Raises _RefusedError beyond the bound."""
        self.items += count
        if self.items > ITEMS_MAX:
            raise _RefusedError(_too_many(ITEMS_MAX))

    def add_hashed(self, in_container: int) -> None:
        """Count one more, of which its container has `in_container`. Raises _RefusedError beyond a bound."""
        self.hashed += 1
        if in_container > HASHED_PER_CONTAINER_MAX:
            raise _RefusedError(
                f"a dict has more than {HASHED_PER_CONTAINER_MAX} int keys, or a set more elements than that "
                "which are neither str nor bytes; use str"
            )
        if self.hashed > HASHED_MAX:
            raise _RefusedError(
                f"its dicts have more than {HASHED_MAX} int keys, and its sets elements that are neither str "
                "nor bytes, in all; use str"
            )


class Opened(NamedTuple):
    """A session's data, and what a patch brings, decoded; extensions are `Ext`.

    If `by_code`, int keys stand as their encoding, as which they are hashed with a secret; otherwise as ints,
    and there are few. `walked` says that some of it was not plain: there may be such keys, or many levels.
    """

    root: dict[Any, Any]
    set: list[Any]
    expect: list[Any]
    by_code: bool
    walked: bool


def path_text(path: Path) -> str:
    """Return a path as text, cut where it is long; the same text for the same path everywhere."""
    # Not repr: that differs between Python versions, and replicas must decide alike.
    text = f"[{', '.join(msgspec.json.encode(key).decode() for key in path)}]"
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."


# --- what is accepted ------------------------------------------------------------------------------------


def check_data(data: bytes) -> None:
    """Raise MalformedError unless a session may hold this data."""
    value = plain_value(data, 0)
    if value is NOT_PLAIN:
        value = _walked(data, 0, Tally())
    if type(value) is not dict:
        raise MalformedError(_NO_DICT)


def check_value(value: bytes, path: Path) -> None:
    """Raise MalformedError, its path being `path` and more, unless this value may stand there."""
    _read_values(((path, value),), Tally())


def check_values(set: tuple[PathValue, ...], expect: tuple[PathValue, ...] = ()) -> None:  # noqa: A002  the name on the wire
    """Raise MalformedError unless a patch may bring all these values, each to stand at its path.

    In `expect`, empty bytes are accepted: they demand that the path is absent.
    """
    tally = Tally()
    _read_values(set, tally)
    if expect:
        _read_values(_present(expect), tally)


def open_data(
    data: bytes,
    set: tuple[PathValue, ...],  # noqa: A002  the name on the wire
    expect: tuple[PathValue, ...],
) -> Opened:
    """Return the data and the values decoded. Raises MalformedError as `check_data` and `check_values` do."""
    total = len(data)
    for _, value in set:
        total += len(value)
    if expect:
        expect = _present(expect)
        total += sum([len(value) for _, value in expect])
    if total <= _INT_KEYED_BYTES_MAX:
        root = _plain(_SMALL, data, 0)
        new = [_plain(_SMALL, value, len(path)) for path, value in set]
        old = [_plain(_SMALL, value, len(path)) for path, value in expect] if expect else []
        if root is not NOT_PLAIN and NOT_PLAIN not in new and NOT_PLAIN not in old:
            return Opened(_checked_root(root), new, old, False, True)  # noqa: FBT003  faster than by name
    own, brought = Tally(), Tally()
    root = _checked_root(_read(data, 0, own))
    new, old = _read_values(set, brought), _read_values(expect, brought)
    return Opened(root, new, old, by_code=True, walked=own.walked or brought.walked)


def _present(expect: tuple[PathValue, ...]) -> tuple[PathValue, ...]:
    """Return the expectations with nil in the place of those that demand absence."""
    return tuple([item if item[1] else (item[0], b"\xc0") for item in expect])


def _checked_root(root: Any) -> dict[Any, Any]:
    if type(root) is not dict:
        raise MalformedError(_NO_DICT)
    return root


_NO_DICT = "session data is not a dict"


def _read_values(items: tuple[PathValue, ...], tally: Tally) -> list[Any]:
    values = []
    for path, value in items:
        try:
            values.append(_read(value, len(path), tally))
        except MalformedError as error:
            raise MalformedError(error.reason, (*path, *error.path), newer=error.newer) from None
    return values


def _read(data: bytes, depth: int, tally: Tally) -> Any:
    """Return what `data` holds, int keys as their encoding. Raises MalformedError."""
    value = _plain(_TEXT_KEYED, data, depth)
    if value is NOT_PLAIN:
        tally.walked = True
        return _walked(data, depth, tally)
    if type(value) in _CONTAINERS:
        tally.plain_items += _measured(value)[0]
        if tally.plain_items > PLAIN_ITEMS_MAX:
            raise MalformedError(_too_many(PLAIN_ITEMS_MAX))
    return value


# --- in C ------------------------------------------------------------------------------------------------

NOT_PLAIN: Any = object()
"""What is left to the walk."""


def plain_value(data: bytes, depth: int) -> Any:
    """Return what `data` holds if it is plain, or small and plain but for int keys, else NOT_PLAIN.

    `depth` is how many levels lie above. Extensions are returned as `Ext`. Raises MalformedError if it holds
    too much.
    """
    value = _plain(_SMALL if len(data) <= _INT_KEYED_BYTES_MAX else _TEXT_KEYED, data, depth)
    if len(data) > PLAIN_ITEMS_MAX and value is not NOT_PLAIN:
        check_numbers(value)
    return value


def bare_value(data: bytes) -> Any:
    """Return what `data` holds if it is plain, not large, and has no extensions, else NOT_PLAIN."""
    if len(data) > PLAIN_ITEMS_MAX:
        return NOT_PLAIN
    try:
        value = _BARE(data)
    except msgspec.MsgspecError:
        return NOT_PLAIN
    return value if _encode(value) == data else NOT_PLAIN


def _plain(decoders: tuple[Callable[[bytes], Any], Callable[[bytes], Any]], data: bytes, depth: int) -> Any:
    if depth > DEPTH_MAX - _PLAIN_LEVELS:
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
        elif kind is Ext and not _ext_fits(value.code, len(value.data)):
            return False
    return True


def _ext_fits(code: int, size: int) -> bool:
    least, most = _EXT_BYTES.get(code, (1, 0))
    return least <= size <= most


def check_numbers(value: Any) -> None:
    """Raise MalformedError if there is too much in data of which every part is plain."""
    items, levels = _measured(value)
    most = PLAIN_ITEMS_MAX if levels <= _PLAIN_LEVELS else ITEMS_MAX
    if items > most:
        raise MalformedError(_too_many(most))


def _measured(value: Any) -> tuple[int, int]:
    """Return how many items these are, on how many levels; if they are too many, some number beyond."""
    items = levels = 0
    level = [value] if type(value) in _CONTAINERS else []
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
            if type(item) in _CONTAINERS
        ]
    return items, levels


def _too_many(most: int) -> str:
    return f"there are more than {most} items, or something is malformed"


# --- the walk --------------------------------------------------------------------------------------------


class _RefusedError(Exception):
    """Carries the reason to where the path is known."""


class _NewerError(_RefusedError):
    """Only a later version of greenroom can have written it."""


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
# What takes one byte: None, False, True, small ints.
_SINGLE = {first: _decode(bytes((first,))) for first in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))}


def _walked(data: bytes, depth: int, tally: Tally) -> Any:
    """Return what `data` holds, `depth` levels below the top, int keys as their encoding.

    Raises MalformedError.
    """
    frames: list[_Frame] = [_Frame([], 1, mapping=False)]
    try:
        root, end = _items(data, depth, tally, frames)
    except _RefusedError as error:
        reason, newer = str(error), type(error) is _NewerError
    except IndexError:
        reason, newer = _CUT, False
    else:
        if end == len(data):
            return root
        reason, newer = _CUT if end > len(data) else "more bytes follow", False
    raise MalformedError(reason, _path(frames), newer=newer)


class _Frame:
    """A container that is being read, and where in it the reading stands."""

    __slots__ = ("ints", "key", "left", "mapping", "node")

    def __init__(self, node: Any, left: int, *, mapping: bool) -> None:
        self.node = node
        self.left = left
        self.mapping = mapping
        self.key: Any = None
        self.ints = 0


def _items(data: bytes, depth: int, tally: Tally, frames: list[_Frame]) -> tuple[Any, int]:
    """Read into the frames until all are complete; return the first item, and where it ends."""
    position = 0
    frame = frames[0]
    top = frame.node
    key: Any = None
    while True:
        while not frame.left:
            if len(frames) == 1:
                return top[0], position
            frames.pop()
            frame = frames[-1]
        frame.left -= 1
        if frame.mapping:
            frame.key = None
            key, position = _key(data, position)
            frame.key = key
            if type(key) is bytes:
                frame.ints += 1
                tally.add_hashed(frame.ints)
            if key in frame.node:
                raise _RefusedError("a dict has this key twice")
        item, count, position = _value(data, position, depth + len(frames) - 1, tally)
        if count >= 0:
            _check_level(depth + len(frames))
            tally.add_items(count)
        if frame.mapping:
            frame.node[key] = item
        else:
            frame.node.append(item)
        if count >= 0:
            frame = _Frame(item, count, mapping=type(item) is dict)
            frames.append(frame)


def _check_level(level: int) -> None:
    if level > DEPTH_MAX:
        raise _RefusedError(f"nesting beyond {DEPTH_MAX} levels")


_CUT = "it ends too early"


def _path(frames: list[_Frame]) -> Path:
    """Return the keys and indexes that lead to where a walk stopped."""
    path: list[str | int] = []
    for frame in frames[1:]:
        if not frame.mapping:
            path.append(len(frame.node) - (frame is not frames[-1]))
        elif frame.key is not None:
            path.append(frame.key if type(frame.key) is str else _decode(frame.key))
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
            raise _RefusedError("a key of a map is neither str nor int")
        end = start + size
    return _text(data[start:end]), end


def _value(data: bytes, position: int, depth: int, tally: Tally) -> tuple[Any, int, int]:
    """Return an item, how many items it waits for (-1: it is complete), and where to go on."""
    first = data[position]
    if first in _SINGLE:
        return _SINGLE[first], -1, position + 1
    if 0xA0 <= first <= 0xBF:
        end = position + first - 0x9F
        return _text(data[position + 1 : end]), -1, end
    if first <= 0x8F:
        return {}, first - 0x80, position + 1
    if first <= 0x9F:
        return [], first - 0x90, position + 1
    if first == 0xCB:
        if position + 9 > len(data):
            raise _RefusedError(_CUT)
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
        raise _RefusedError(_CUT)
    if not least <= item[1:] <= most:
        raise _RefusedError(_LONG)
    return item, end


_LONG = "a value does not stand in its shortest form"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    raise _RefusedError("a str is not valid UTF-8")


def _header(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Return kind, where the content starts, its size in bytes or items, and the code of an extension."""
    first = data[position]
    if first in _FIXED_EXT:
        return _EXT, position + 2, _FIXED_EXT[first], data[position + 1]
    if first not in _HEADERS:
        raise _RefusedError("a float of 32 bits is not kept" if first == 0xCA else "malformed msgpack")
    kind, width, least = _HEADERS[first]
    start = position + 1 + width
    if start > len(data):
        raise _RefusedError(_CUT)
    size = int.from_bytes(data[position + 1 : start], "big")
    if size < least or (kind == _EXT and size in _FIXED_EXT.values()):
        raise _RefusedError(_LONG)
    if kind == _EXT:
        return kind, start + 1, size, data[start]
    return kind, start, size, 0


def _check_ext(data: bytes, code: int, start: int, end: int, depth: int, tally: Tally) -> None:
    """Raise _RefusedError unless this is an extension of the codec with a payload that it may have.

    In a set: hashable elements only, and no more than are safe to hash. Those that a tuple or a frozenset
    there has all count: their hashes can be made equal, and comparing takes as long as they are.
    """
    if code not in _COLLECTIONS:
        _check_scalar_ext(code, end - start)
        return
    if code == EXT_TUPLE:
        raise _RefusedError("a tuple stands in sets only")
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
                raise _RefusedError("a collection does not end where its extension does")
        if not stack:
            return
        top = stack[-1]
        top[0] -= 1
        opened, position, counts = _element(data, position)
        if counts or len(stack) > 1:
            top[2] += 1
            tally.add_hashed(top[2])


def _list_header(data: bytes, position: int) -> tuple[int, int]:
    """Return where the elements of a collection start, and how many there are."""
    first = data[position]
    if 0x90 <= first <= 0x9F:
        return position + 1, first - 0x90
    kind, start, size, _ = _header(data, position)
    if kind != _LIST:
        raise _RefusedError("a collection holds no list of elements")
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
        raise _RefusedError(_UNHASHABLE)
    kind, start, size, code = _header(data, position)
    end = start + size
    if kind == _EXT:
        if code in (EXT_FROZENSET, EXT_TUPLE):
            return end, start, True
        if code == EXT_SET:
            raise _RefusedError(_UNHASHABLE)
        _check_scalar_ext(code, size)
        return None, end, True
    if kind == _STR:
        _text(data[start:end])
    elif kind != _BIN:
        raise _RefusedError(_UNHASHABLE)
    return None, end, False


_UNHASHABLE = "a set holds a dict, a list or a set"


def _check_scalar_ext(code: int, size: int) -> None:
    if code not in _EXT_BYTES:
        raise _NewerError(
            f"a value is of kind {code}, which this version of greenroom does not know; upgrade it to the "
            "version that wrote the value"
        )
    if not _ext_fits(code, size):
        raise _RefusedError(f"a value of kind {code} takes {size} bytes, which none does")
