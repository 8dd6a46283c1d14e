"""Validation of a session's fields, and conversion of times between callers and stores.

Stores keep times as integer microseconds since 1970-01-01 UTC; callers see aware datetimes in UTC.
"""

from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from struct import Struct, error
from typing import Final

import msgspec

from greenroom.errors import UsageError

USER_ID_BYTES_MAX = 256
LABEL_BYTES_MAX = 256
DATA_BYTES_MAX = 1 << 20
LIST_LIMIT_MAX = 2000
"""The most sessions of one listing: even with the longest labels they fit into one frame."""

_VERSION_BOUND = 1 << 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
# A timestamp of MessagePack in 96 bits: an extension of 12 bytes, its kind -1, nanoseconds, seconds.
_stamp = partial(Struct(">HBIq").pack, 0xC70C, 0xFF)
_moment_of = msgspec.msgpack.Decoder(datetime).decode
MICROS_MIN = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
MICROS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The first and the last moment that a datetime can hold."""


class Unchanged(Enum):
    """Type of `UNCHANGED`."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return self.value


class Absent(Enum):
    """Type of `ABSENT`."""

    ABSENT = "ABSENT"

    def __repr__(self) -> str:
        return self.value


UNCHANGED: Final = Unchanged.UNCHANGED
"""As `user_id`: leave the session's user as it is (None would make it anonymous)."""

ABSENT: Final = Absent.ABSENT
"""As a value in `expect`: the path must not exist."""


def utc_now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)


def micros_of(moment: datetime, field: str) -> int:
    """Return microseconds since 1970 UTC. Raises UsageError if `moment` is not an aware datetime."""
    if type(moment) is datetime and moment.tzinfo is UTC:  # the usual, and never out of range
        since = moment - _EPOCH
        return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds
    if not isinstance(moment, datetime):
        raise UsageError(f"{field} is an aware datetime, not {type(moment).__name__}")
    if moment.utcoffset() is None:
        raise UsageError(f"{field} has no time zone; use for example datetime.now(UTC) + timedelta(hours=1)")
    since = moment - _EPOCH
    # A kind of datetime may have a kind of timedelta, and that may have its own ints.
    micros = int(since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds)
    if not MICROS_MIN <= micros <= MICROS_MAX:
        raise UsageError(f"{field} lies outside of the years 1 to 9999 in UTC")
    return micros


def datetime_of(micros: int) -> datetime:
    """Return the moment, aware, in UTC. Raises OverflowError outside of the years 1 to 9999."""
    # Reading it as a MessagePack timestamp takes two thirds of the time of datetime's own methods.
    seconds, micros = divmod(micros, 1_000_000)
    try:
        return _moment_of(_stamp(micros * 1000, seconds))
    except (msgspec.ValidationError, ValueError, error):
        raise OverflowError("the moment lies outside of the years 1 to 9999") from None


def moved_moment(micros: int, by_us: int) -> int:
    """Return the moment this much later, or the last or first one that a datetime can hold."""
    return max(MICROS_MIN, min(MICROS_MAX, micros + by_us))


def checked_user_id(user_id: str | None) -> str | None:
    """Return it as a plain str, or None. Raises UsageError unless it has 1 to 256 bytes in UTF-8."""
    return None if user_id is None else _checked_text(user_id, "user_id", 1, USER_ID_BYTES_MAX)


def checked_present_user_id(user_id: str) -> str:
    """Return it as a plain str. Raises UsageError as above, and for None: operations by user need a user."""
    return _checked_text(user_id, "user_id", 1, USER_ID_BYTES_MAX)


def checked_label(label: str) -> str:
    """Return it as a plain str. Raises UsageError unless it has at most 256 bytes in UTF-8."""
    return _checked_text(label, "label", 0, LABEL_BYTES_MAX)


def check_limit(limit: int) -> None:
    """Raise UsageError unless this is an int from 1 to LIST_LIMIT_MAX."""
    if type(limit) is not int or not 1 <= limit <= LIST_LIMIT_MAX:
        raise UsageError(f"limit is an int from 1 to {LIST_LIMIT_MAX}: how many sessions to list at most")


def check_version(version: int | None) -> None:
    """Raise UsageError unless this is None or an int of 64 bits, signed."""
    if version is None:
        return
    if type(version) is not int:
        raise UsageError(f"version is an int or None, not {type(version).__name__}")
    if not -_VERSION_BOUND <= version < _VERSION_BOUND:
        raise UsageError("version is a number that a store returned, and none that takes more than 64 bits")


def check_data_size(data: bytes) -> None:
    """Raise UsageError if encoded session data is over the limit."""
    if len(data) > DATA_BYTES_MAX:
        raise oversized(f"{len(data)} bytes")


def oversized(size: str) -> UsageError:
    """Return the error of encoded session data over the limit; `size` reads like "12 bytes"."""
    return UsageError(
        f"session data takes {size} encoded, over the limit of {DATA_BYTES_MAX}; keep large "
        f"values elsewhere and only their keys in the session"
    )


def _checked_text(text: str, field: str, least: int, most: int) -> str:
    if type(text) is str and text.isascii() and least <= len(text) <= most:
        return text
    if not isinstance(text, str):
        raise UsageError(f"{field} is a str, not {type(text).__name__}")
    # Frameworks have kinds of str, and what passes for one, which msgpack does not take.
    text = str.__str__(str(text))
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if not least <= size <= most:
        raise UsageError(f"{field} has {least} to {most} bytes in UTF-8, this one has {size}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{field} must be encodable as UTF-8; this one holds a lone surrogate")
    return text
