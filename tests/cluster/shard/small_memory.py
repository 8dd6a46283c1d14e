"""Actors with little memory, and sessions that fill it."""

import msgspec

from greenroom import wire
from greenroom_cluster.shard.settings import HostSettings

SMALL = HostSettings(memory_bytes_max=200_000)
PLENTY = HostSettings(memory_bytes_max=100_000_000)
SIZE = 2000


def data(size: int = SIZE, mark: int = 0) -> bytes:
    return msgspec.msgpack.encode({"x": b"x" * size, "n": mark})


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def is_full(reply: wire.Reply) -> bool:
    return isinstance(reply, wire.Failed) and reply.code == wire.FailureCode.FULL
