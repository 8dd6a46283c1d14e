"""The sessions that are stored: the same for every contender."""

from typing import Any

import msgspec

LIFETIME_SECONDS = 7200
_SPREAD = 40_503  # odd, so that 65,536 ids in a row fall on every routing point


def session_id(number: int) -> str:
    """Return the id of the session of that number, in the form that `greenroom.new_session_id` gives.

    Predictable, so that several client processes know the same sessions.
    """
    return f"gr-{number * _SPREAD & 0xFFFF:04x}-{number:032d}"


def session_data(size: int) -> dict[str, Any]:
    """Return data of a shopper that takes `size` bytes (at least 100) as msgpack."""
    data = {"user": "u-000000001", "theme": "dark", "cart": {"sku-1": 2, "sku-2": 1}, "visits": 1, "note": ""}
    for length in range(size - 64, 0, -1):
        data["note"] = "x" * length
        if len(msgspec.msgpack.encode(data)) <= size:
            break
    return data


def sampled_numbers(total: int, sample: int) -> list[int]:
    """Return `sample` session numbers (or all) spread evenly over the first `total`."""
    if sample >= total:
        return list(range(total))
    return [position * total // sample for position in range(sample)]
