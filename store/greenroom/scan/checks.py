"""The interface of the scan: whether data and values are accepted, and their contents."""

from typing import Any, NamedTuple

from greenroom.scan.bounds import PLAIN_ITEMS_MAX, MalformedError, Tally, too_many
from greenroom.scan.plain import (
    CONTAINERS,
    INT_KEYED_BYTES_MAX,
    NOT_PLAIN,
    SMALL,
    TEXT_KEYED,
    fits,
    measured,
    plain_read,
    plain_value,
    small_value,
)
from greenroom.scan.walk import walked
from greenroom.wire import Path, PathValue


class Opened(NamedTuple):
    """A session's data and the values of a patch, decoded; extensions are `Ext`.

    If `by_code`, int keys are shown as their encoding, so that they are hashed with a secret; otherwise as
    ints, and there are few. `int_keyed`: there may be int keys, or many levels, because some of it was not
    plain.
    """

    root: dict[Any, Any]
    set: list[Any]
    expect: list[Any]
    by_code: bool
    int_keyed: bool


def check_data(data: bytes) -> int:
    """Return the number of items of this data that were read in Python, which is slow.

    Raises MalformedError unless a session may hold it.
    """
    if len(data) <= INT_KEYED_BYTES_MAX:
        # Nearly all sessions take this way, with as few calls as possible: every write comes through here.
        value = small_value(data)
        if type(value) is dict:
            return 0
    else:
        value = plain_value(data, 0)
    items = 0
    if value is NOT_PLAIN:
        tally = Tally()
        value, items = walked(data, 0, tally), tally.items
    if type(value) is not dict:
        raise MalformedError(_NO_DICT)
    return items


def check_value(value: bytes, path: Path) -> None:
    """Raise MalformedError, its path being `path` and more, unless this value may stand there."""
    _read_values(((path, value),), Tally())


def check_values(set: tuple[PathValue, ...], expect: tuple[PathValue, ...] = ()) -> int:  # noqa: A002  the name on the wire
    """Return the number of items of a patch's values that were read in Python; each value has its path.

    In `expect`, empty bytes are accepted: they demand that the path is absent. Raises MalformedError unless a
    patch may bring all of these.
    """
    total = 0
    for path, value in set:
        total += len(value)
        if total > INT_KEYED_BYTES_MAX or plain_read(SMALL, value, len(path)) is NOT_PLAIN:
            break
    else:
        if not expect:
            return 0
    tally = Tally()
    _read_values(set, tally)
    if expect:
        _read_values(_present(expect), tally)
    return tally.items


def open_data(
    data: bytes,
    set: tuple[PathValue, ...],  # noqa: A002  the name on the wire
    expect: tuple[PathValue, ...],
    walked: Tally | None = None,
) -> Opened:
    """Return the data and the values decoded. Raises MalformedError as `check_data` and `check_values` do.

    `walked.items` grows by the number of items read in Python.
    """
    total = len(data)
    for _, value in set:
        total += len(value)
    if expect:
        expect = _present(expect)
        total += sum([len(value) for _, value in expect])
    if total <= INT_KEYED_BYTES_MAX:
        root = plain_read(SMALL, data, 0)
        new = [plain_read(SMALL, value, len(path)) for path, value in set]
        old = [plain_read(SMALL, value, len(path)) for path, value in expect] if expect else []
        if root is not NOT_PLAIN and NOT_PLAIN not in new and NOT_PLAIN not in old:
            return Opened(_checked_root(root), new, old, False, True)  # noqa: FBT003  faster than by name
    own, brought = Tally(), Tally()
    try:
        root = _checked_root(_read(data, 0, own))
        new, old = _read_values(set, brought), _read_values(expect, brought)
    finally:
        if walked is not None:
            walked.items += own.items + brought.items
    return Opened(root, new, old, by_code=True, int_keyed=own.walked or brought.walked)


def _present(expect: tuple[PathValue, ...]) -> tuple[PathValue, ...]:
    """Return the expectations with nil in place of those that demand absence."""
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
            raise MalformedError(
                error.reason, (*path, *error.path), newer=error.newer, walked_items=error.walked_items
            ) from None
    return values


def _read(data: bytes, depth: int, tally: Tally) -> Any:
    """Return the contents of `data`, int keys as their encoding. Raises MalformedError."""
    value = plain_read(TEXT_KEYED, data, depth) if fits(data, tally) else NOT_PLAIN
    if value is NOT_PLAIN:
        tally.walked = True
        return walked(data, depth, tally)
    if type(value) in CONTAINERS:
        tally.plain_items += measured(value)[0]
        if tally.plain_items > PLAIN_ITEMS_MAX:
            raise MalformedError(too_many(PLAIN_ITEMS_MAX))
    return value
