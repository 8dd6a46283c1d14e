"""What tests of the scan have in common."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from greenroom.scan.bounds import (
    MalformedError,
)

encode = msgspec.msgpack.Encoder().encode


def verdict(check: Callable[..., Any], *arguments: Any) -> str:
    try:
        check(*arguments)
    except MalformedError as error:
        return error.reason
    return ""


@cache
def colliding_ints(count: int) -> list[int]:
    """Ints that take a dict of CPython quadratic time to hold, when they come in this order.

    Half of them lie where a search of the dict comes by, one after the other. The others come in groups of
    the same hash, whose search begins where the first of these lie, whatever the upper bits of the hash add.
    """
    bits = 3
    while (2 << bits) // 3 < count:
        bits += 1
    mask, half = (1 << bits) - 1, count // 2
    order: dict[int, int] = {}
    place = 1
    while len(order) < half:
        order[place] = len(order)
        place = (5 * place + 1) & mask
    row, keys, known, chance = list(order), list(order), set(order), random.Random(0)
    while len(keys) < count:
        first = chance.choice(row) | chance.randrange(1, 1024) << bits
        place, upper = first & mask, first
        while place in order and upper:
            upper >>= 5
            place = (5 * place + upper + 1) & mask
        if order.get(place, half) < half // 8 and first not in known:
            known.add(first)
            keys += [first + times * ((1 << 61) - 1) for times in range(8)]
    return keys[:count]
