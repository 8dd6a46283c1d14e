"""The bounds of session data, and the errors that say what exceeds them."""

import msgspec

from greenroom.wire import PATH_KEYS_MAX, Path

DEPTH_MAX = PATH_KEYS_MAX
PLAIN_ITEMS_MAX = 65_536
"""The most elements of lists and entries of maps, in all, in plain data."""
ITEMS_MAX = 8192
"""The most elements of lists and sets and entries of maps, in all, in data that is not plain."""
OPENINGS_MAX = 32_768
"""The most bytes in plain data that could begin a container or an extension, wherever they are."""
HEADS_MAX = 131_072
"""The most bytes in plain data that could begin a str, wherever they are: two for each item."""
HASHED_PER_CONTAINER_MAX = 1024
"""The most int keys of one map, and the most elements of one set that are neither str nor bytes."""
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
EXT_BYTES = {
    EXT_INT: (1, NUMBER_BYTES_MAX),
    EXT_DATETIME: (1, 512),
    EXT_DATE: (1, 16),
    EXT_TIME: (1, 512),
    EXT_TIMEDELTA: (1, 32),
    EXT_UUID: (16, 16),
    EXT_DECIMAL: (1, NUMBER_BYTES_MAX),
}
"""By code: the least and the most bytes of the payload, except of collections."""

SMALL_BYTES = 2500
"""Smaller data exceeds no bound: a set of 1025 different ints takes 2,531 bytes."""
_TEXT_MAX = 200


class MalformedError(ValueError):
    """No session may hold this: the reason, and the path to it. The text is the same on every replica.

    `newer`: only a later version of greenroom can have written it. `walked_items` is the number of items that
    were read in Python until then.
    """

    def __init__(self, reason: str, path: Path = (), *, newer: bool = False, walked_items: int = 0) -> None:
        super().__init__(f"{reason}, at {path_text(path)}" if path else reason)
        self.reason = reason
        self.path = path
        self.newer = newer
        self.walked_items = walked_items


class Tally:
    """Counts against the bounds of a session or of a patch."""

    __slots__ = ("bytes", "items", "openings", "plain_items", "walked")

    def __init__(self) -> None:
        self.bytes = 0
        self.openings = 0
        self.plain_items = 0
        self.items = 0
        self.walked = False

    def add_items(self, count: int) -> None:
        """Raises RefusedError beyond the bound."""
        self.items += count
        if self.items > ITEMS_MAX:
            raise RefusedError(too_many(ITEMS_MAX))


class RefusedError(Exception):
    """Carries the reason to the code that knows the path."""


class NewerError(RefusedError):
    """Only a later version of greenroom can have written it."""


def check_hashed(in_container: int) -> None:
    """Raise RefusedError if a container has too many values that are hashed without a secret."""
    if in_container > HASHED_PER_CONTAINER_MAX:
        raise RefusedError(
            f"a dict has more than {HASHED_PER_CONTAINER_MAX} int keys, or a set more elements than that "
            "which are neither str nor bytes; use str"
        )


def ext_fits(code: int, size: int) -> bool:
    """Whether an extension of this code (no collection) may have a payload of this size."""
    least, most = EXT_BYTES.get(code, (1, 0))
    return least <= size <= most


def too_many(most: int) -> str:
    """Return the reason to refuse more items than this."""
    return f"there are more than {most} items, or something is malformed"


def path_text(path: Path) -> str:
    """Return a path as text, cut if it is long; every replica gives the same text for the same path."""
    # Not repr: that differs between Python versions, and replicas must decide alike.
    parts, size = [], 0
    for key in path:
        # A key may be as long as a frame; of a long one no more is shown than fits.
        part = msgspec.json.encode(key[:_TEXT_MAX] if type(key) is str else key).decode()
        parts.append(part)
        size += len(part) + 2
        if size > _TEXT_MAX:
            break
    text = f"[{', '.join(parts)}]"
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."
