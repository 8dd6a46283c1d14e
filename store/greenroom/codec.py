"""Session data as bytes: msgpack, with extensions for the types that msgpack lacks. Never pickle.

A session's data is a dict with str and int keys, holding None, bool, int (of any size), float, str, bytes,
list, dict, datetime, date, time, timedelta, UUID, Decimal, set and frozenset; each comes back with its type.
A tuple comes back as a list, except inside a set, where it stays a tuple. Time zones: a ZoneInfo comes back
by its key, any other tzinfo as a fixed offset. A value or key of a subclass comes back as its base type
(`greenroom.bases`).

The bytes are deterministic except for the order of dict keys: elements of sets are sorted by their encoding.
Nothing here puts a value into an error: values may be secrets, so errors name the path only.
"""

import marshal
from collections.abc import Callable, Iterable
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from greenroom.bases import STANDARD, STORABLE, NoBaseError, plain_form, plain_key
from greenroom.errors import UnreadableSessionError, UsageError
from greenroom.fields import check_data_size
from greenroom.scan.bounds import (
    DEPTH_MAX,
    EXT_DATE,
    EXT_DATETIME,
    EXT_DECIMAL,
    EXT_FROZENSET,
    EXT_INT,
    EXT_SET,
    EXT_TIME,
    EXT_TIMEDELTA,
    EXT_TUPLE,
    EXT_UUID,
    NUMBER_BYTES_MAX,
    SMALL_BYTES,
    MalformedError,
)
from greenroom.scan.checks import check_value
from greenroom.scan.plain import NOT_PLAIN, PLAIN_LEVELS, bare_value, read_bare

INT_MIN = -(1 << 63)
INT_MAX = (1 << 64) - 1

_MICROSECOND = timedelta(microseconds=1)
_UNCHANGED_TYPES = frozenset({NoneType, bool, float, bytes})
_PLAIN_TYPES = _UNCHANGED_TYPES | {int, str}
_UNHASHABLE = frozenset({dict, list, set})


class _UnstorableError(Exception):
    """Carries the path, innermost key first, up to where the error is raised to the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keys: list[object] = []


def encode_data(data: dict[str | int, Any] | dict[str, Any]) -> bytes:
    """Return the data of a session as bytes. Raises UsageError naming the path of a value it cannot store."""
    if not isinstance(data, dict):
        raise UsageError(f"session data is a dict, not {type(data).__name__}")
    return encode_value(data, ())


def encode_within_limit(data: dict[str | int, Any] | dict[str, Any]) -> bytes:
    """Return the data of a session as bytes. Raises UsageError as `encode_data`, and if they are too many."""
    encoded = encode_data(data)
    check_data_size(encoded)
    return encoded


def encode_value(value: Any, path: tuple[str | int, ...] = ()) -> bytes:
    """Return one value, to stand at `path` of a session's data, as bytes.

    Raises UsageError naming the path of a value that it cannot store.
    """
    if len(path) <= DEPTH_MAX - PLAIN_LEVELS:
        try:
            encoded = _encode(value)
            # Found out in C: what comes back equal as str, numbers, lists and dicts alone holds nothing else
            # but their subclasses, and those marshal does not take. It comes last: what contains itself it
            # would follow for ever.
            if len(encoded) <= SMALL_BYTES and read_bare(encoded) == value:
                marshal.dumps(value)
                return encoded
        except Exception:  # noqa: BLE001, S110  foreign types may raise anything; it is told in words below
            pass
    try:
        encoded = _encoded(value, len(path))
        if len(encoded) > SMALL_BYTES:  # only that much can hold too many of anything
            check_value(encoded, path)
        return encoded
    except _UnstorableError as error:
        keys, reason = (*path, *reversed(error.keys)), error.reason
    except MalformedError as error:
        keys, reason = error.path, error.reason
    # Raised out here so that no exception with a value in it hangs on the error as its context.
    raise UsageError(f"data{''.join(f'[{key!r}]' for key in keys)} cannot be stored: {reason}")


def _encoded(value: Any, depth: int) -> bytes:
    if _is_plain(value, depth):
        try:
            return _encoder.encode(value)
        except (OverflowError, UnicodeEncodeError):  # a large int, or a lone surrogate: refused below
            pass
    return _encoder.encode(_pack(value, depth))


def encode_kept(data: dict[Any, Any], kept: bytes) -> bytes:
    """Return `kept` itself if these bytes hold the data of a session, else what `encode_data` does."""
    try:
        encoded = _encode(data)
        # 1, True and 1.0 differ as bytes, and so do all values that msgspec encodes in its own way.
        if (encoded == kept or len(encoded) <= SMALL_BYTES) and read_bare(encoded) == data:
            if encoded == kept:
                return kept
            marshal.dumps(data)  # as in `encode_value`
            return encoded
    except Exception:  # noqa: BLE001, S110  foreign types may raise anything; it is told in words below
        pass
    return encode_data(data)


def decode_data(data: bytes) -> dict[Any, Any]:
    """Return the dict that `encode_data` encoded.

    Raises UnreadableSessionError if it did not write these bytes; `newer` is set if a later version may have.
    """
    value = bare_value(data)
    if value is NOT_PLAIN:
        value = _checked_value(data)
    if type(value) is not dict:
        raise UnreadableSessionError("stored session data is not a dict: something else wrote to this store")
    return value


def decode_value(data: bytes) -> Any:
    """Return the value that `encode_value` encoded. Raises UnreadableSessionError like `decode_data`."""
    value = bare_value(data)
    return _checked_value(data) if value is NOT_PLAIN else value


def _checked_value(data: bytes) -> Any:
    try:
        check_value(data, ())
        return _decoder.decode(data)
    except MalformedError as error:
        message, newer = f"stored session data cannot be read: {error}", error.newer
    except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, LookupError, OSError):
        message, newer = "stored session data cannot be read: it was not written by greenroom", False
    raise UnreadableSessionError(message, newer=newer)


# --- encoding --------------------------------------------------------------------------------------------


def _is_plain(value: Any, depth: int) -> bool:
    """Whether msgpack has all types in `value`, as in most sessions; then it is encoded as it is."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return True
    if depth >= DEPTH_MAX:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str and type(key) is not int:
                return False
            if type(item) not in _PLAIN_TYPES and not _is_plain(item, depth + 1):
                return False
        return True
    return (kind is list or kind is tuple) and all(_is_plain(item, depth + 1) for item in value)


def _pack(value: Any, depth: int) -> Any:
    """Return `value` in types that msgpack has."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _checked_text(value)
    if kind in _UNCHANGED_TYPES:
        return value
    if kind is int:
        return value if INT_MIN <= value <= INT_MAX else _number(EXT_INT, _int_bytes(value))
    if kind is dict:
        return _pack_dict(value, depth)
    if kind is list or kind is tuple:
        return _pack_items(value, depth, _pack)
    packer = _PACKERS.get(kind)
    return _pack(_form_of(value), depth) if packer is None else packer(value, depth)


def _form_of(value: Any) -> Any:
    try:
        return plain_form(value)
    except NoBaseError as error:
        raise _UnstorableError(str(error) or _refusal(type(value))) from None


def _pack_dict(value: dict[Any, Any], depth: int) -> dict[str | int, Any]:
    inner = _deeper(depth)
    packed = {}
    for key, item in value.items():
        if type(key) is not str or not key.isascii():
            key = _checked_key(key)
        try:
            packed[key] = _pack(item, inner)
        except _UnstorableError as error:
            error.keys.append(key)
            raise
    if len(packed) < len(value):
        raise _UnstorableError("two keys of this dict would be one: they differ in their types alone")
    return packed


def _checked_key(key: object) -> str | int:
    plain = plain_key(key)
    if type(plain) is str:
        return _checked_text(plain)
    if type(plain) is not int:
        raise _UnstorableError(f"a key of this dict is a {type(key).__name__}; keys are str or int")
    if not INT_MIN <= plain <= INT_MAX:
        raise _UnstorableError("a key of this dict is an int outside of 64 bits; use a str")
    return plain


def _pack_items(value: Iterable[Any], depth: int, pack: Callable[[Any, int], Any]) -> list[Any]:
    inner = _deeper(depth)
    packed = []
    for index, item in enumerate(value):
        try:
            packed.append(pack(item, inner))
        except _UnstorableError as error:
            error.keys.append(index)
            raise
    return packed


def _pack_element(value: Any, depth: int) -> Any:
    """Like `_pack`, for an element of a set: there a tuple must come back hashable."""
    if type(value) not in STORABLE:
        value = _form_of(value)
        if type(value) in _UNHASHABLE:
            raise _UnstorableError(
                f"an element of a set would come back as a {type(value).__name__}, which none can be"
            )
    if type(value) is tuple:
        return Ext(EXT_TUPLE, _encoder.encode(_pack_items(value, depth, _pack_element)))
    return _pack(value, depth)


def _pack_set(code: int, value: Iterable[Any], depth: int) -> Ext:
    inner = _deeper(depth)
    parts = sorted(_encoder.encode(_pack_element(item, inner)) for item in value)
    return Ext(code, _encoder.encode([msgspec.Raw(part) for part in parts]))


def _pack_datetime(value: datetime, _depth: int) -> Ext:
    zone = _pack_zone(value.tzinfo, value.utcoffset)
    return Ext(EXT_DATETIME, _encoder.encode([value.replace(tzinfo=None).isoformat(), value.fold, zone]))


def _pack_time(value: time, _depth: int) -> Ext:
    zone = _pack_zone(value.tzinfo, value.utcoffset)
    return Ext(EXT_TIME, _encoder.encode([value.replace(tzinfo=None).isoformat(), value.fold, zone]))


def _pack_zone(zone: object, utcoffset: Callable[[], timedelta | None]) -> list[Any] | None:
    """Return [offset in microseconds or None, key or None], or None for a naive time.

    The offset stands beside the key for readers that do not know the zone.
    """
    if zone is None:
        return None
    try:
        offset = utcoffset()
    except Exception as error:  # noqa: BLE001  a foreign tzinfo may raise anything
        raise _UnstorableError(f"its time zone raised {type(error).__name__}") from None
    key = zone.key if isinstance(zone, ZoneInfo) else None
    if offset is None and key is None:
        raise _UnstorableError("its time zone has neither a key nor an offset; use zoneinfo or UTC")
    return [None if offset is None else offset // _MICROSECOND, key]


def _pack_timedelta(value: timedelta, _depth: int) -> Ext:
    return Ext(EXT_TIMEDELTA, _encoder.encode([value.days, value.seconds, value.microseconds]))


_PACKERS: dict[type, Callable[[Any, int], Any]] = {
    STANDARD.datetime: _pack_datetime,
    STANDARD.date: lambda value, _depth: Ext(EXT_DATE, value.isoformat().encode()),
    STANDARD.time: _pack_time,
    STANDARD.timedelta: _pack_timedelta,
    UUID: lambda value, _depth: Ext(EXT_UUID, value.bytes),
    Decimal: lambda value, _depth: _number(EXT_DECIMAL, str(value).encode()),
    set: lambda value, depth: _pack_set(EXT_SET, value, depth),
    frozenset: lambda value, depth: _pack_set(EXT_FROZENSET, value, depth),
}


def _deeper(depth: int) -> int:
    if depth >= DEPTH_MAX:
        raise _UnstorableError(f"it lies deeper than {DEPTH_MAX} levels, or contains itself")
    return depth + 1


def _checked_text(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _UnstorableError("a str holds a lone surrogate, which UTF-8 cannot; store bytes instead")
    return value


def _number(code: int, payload: bytes) -> Ext:
    if len(payload) > NUMBER_BYTES_MAX:
        raise _UnstorableError(
            f"a number takes at most {NUMBER_BYTES_MAX} bytes; store bytes or a str instead"
        )
    return Ext(code, payload)


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _refusal(kind: type) -> str:
    # With its module, since numpy has a bool too.
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return (
        f"a {name} is not among None, bool, int, float, str, bytes, list, dict, set, frozenset, "
        "datetime, date, time, timedelta, UUID and Decimal; convert it first"
    )


# --- decoding --------------------------------------------------------------------------------------------


def _unpack(code: int, payload: memoryview) -> Any:
    return _UNPACKERS[code](bytes(payload))


def _unpack_datetime(payload: bytes) -> datetime:
    text, fold, zone = _moment_of(payload)
    return STANDARD.datetime.fromisoformat(text).replace(fold=fold, tzinfo=_unpack_zone(zone))


def _unpack_time(payload: bytes) -> time:
    text, fold, zone = _moment_of(payload)
    return STANDARD.time.fromisoformat(text).replace(fold=fold, tzinfo=_unpack_zone(zone))


def _unpack_zone(zone: tuple[int | None, str | None] | None) -> timezone | ZoneInfo | None:
    if zone is None:
        return None
    offset, key = zone
    if key is not None:
        try:
            return ZoneInfo(key)
        except (LookupError, ValueError, OSError):
            pass
    return None if offset is None else timezone(timedelta(microseconds=offset))


def _unpack_timedelta(payload: bytes) -> timedelta:
    return STANDARD.timedelta(*_span_of(payload))


# Typed, and so without recursion and without keys.
_moment_of = msgspec.msgpack.Decoder(tuple[str, int, tuple[int | None, str | None] | None]).decode
_span_of = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
_encoder = msgspec.msgpack.Encoder()
_encode = _encoder.encode
_decoder = msgspec.msgpack.Decoder(ext_hook=_unpack)
_UNPACKERS: dict[int, Callable[[bytes], Any]] = {
    EXT_INT: lambda payload: int.from_bytes(payload, "big", signed=True),
    EXT_DATETIME: _unpack_datetime,
    EXT_DATE: lambda payload: STANDARD.date.fromisoformat(payload.decode()),
    EXT_TIME: _unpack_time,
    EXT_TIMEDELTA: _unpack_timedelta,
    EXT_UUID: lambda payload: UUID(bytes=payload),
    EXT_DECIMAL: lambda payload: Decimal(payload.decode()),
    EXT_SET: lambda payload: set(_decoder.decode(payload)),
    EXT_FROZENSET: lambda payload: frozenset(_decoder.decode(payload)),
    EXT_TUPLE: lambda payload: tuple(_decoder.decode(payload)),
}
