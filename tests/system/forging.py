"""Frames that nobody honest sends: messages of any kind with wild fields, and bytes that are no message."""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import inspect

from greenroom import wire
from greenroom.framing import FRAME_BYTES_MAX, messages_decoder

INTEGERS = (-(1 << 63), -1, 0, 1, 2, 3, 7, 255, 1 << 16, 1 << 40, (1 << 62), (1 << 63) - 1, (1 << 64) - 1)
SIZES = (0, 1, 5, 16, 16, 32, 32, 33, 300, 5000)
TEXTS = (
    *("", "n1", "n9", "n9/0", "127.0.0.1:1", "alice", "up", "start", "takeover"),
    *("\x1b]0;x\x07", "\N{GRINNING FACE}" * 300),
)
DATA = (b"\x80", b"\x81\xa1a\x01", b"\x81\x01\x91\xc0", b"\x82\xa1a\x01\xa1a\x02", b"\xc1")
HEADER_BYTES = 4

_type_info = cache(inspect.type_info)


class Forger:
    """Makes frames up. `known` are bytes and numbers that mean something to the other side."""

    def __init__(self, seed: object, known: Iterable[object] = ()) -> None:
        self.chance = random.Random(repr(seed))
        known = list(known)
        self._bytes = [each for each in known if isinstance(each, bytes)]
        self._numbers = [each for each in known if isinstance(each, int)]

    # --- messages ----------------------------------------------------------------------------------------

    def message(self, kinds: Any) -> list[Any]:
        """Return a message of one of these kinds, with the types that it must have and odd values."""
        kind = self.chance.choice(get_args(kinds) or (kinds,))
        return self._value(_type_info(kind))

    def _value(self, kind: Any) -> Any:  # noqa: C901  one case for each type
        chance = self.chance
        match kind:
            case inspect.StructType(cls=cls, fields=fields):
                tag = cls.__struct_config__.tag
                values = [self._value(field.type) for field in fields]
                return values if tag is None else [tag, *values]
            case inspect.UnionType(types=types):
                return self._value(chance.choice(types))
            case inspect.IntType():
                number = chance.choice((*INTEGERS, *self._numbers, *self._numbers))
                if chance.random() < 0.05:
                    return number
                least = kind.ge if kind.ge is not None else -(1 << 63)
                most = kind.le if kind.le is not None else (1 << 64) - 1
                return min(max(number, least), most if kind.lt is None else kind.lt - 1)
            case inspect.BytesType():
                if kind.min_length is None and chance.random() < 0.3:
                    return chance.choice(DATA)
                size = self._size(kind, chance.choice(SIZES))
                fitting = [each for each in self._bytes if len(each) == size]
                if fitting and chance.random() < 0.5:
                    return chance.choice(fitting)
                return chance.randbytes(size)
            case inspect.StrType():
                text = chance.choice(TEXTS)
                return text if chance.random() < 0.05 else text[: kind.max_length]
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                size = self._size(kind, chance.choice((0, 1, 1, 2, 3)))
                return [self._value(item) for _ in range(min(size, 64))]
            case inspect.TupleType(item_types=items):
                return [self._value(item) for item in items]
            case inspect.BoolType():
                return chance.random() < 0.5
            case inspect.FloatType():
                return chance.choice((0.0, -1.0, 1e300, float("inf"), float("nan")))
            case inspect.NoneType():
                return None
            case inspect.DictType(key_type=key, value_type=value):
                return {1: 2} if chance.random() < 0.1 else {self._hashable(key): self._value(value)}
            case _:
                return chance.choice((None, {}, [], 1, b"\xc1", "x", [[[[]]]]))

    def _hashable(self, kind: Any) -> Any:
        found = self._value(kind)
        return found if isinstance(found, str | bytes | int) else 0

    def _size(self, kind: Any, size: int) -> int:
        if self.chance.random() < 0.05:
            return size
        least, most = kind.min_length or 0, kind.max_length
        return max(size, least) if most is None else min(max(size, least), most)

    # --- frames ------------------------------------------------------------------------------------------

    def frame(self, kinds: Any) -> bytes:
        """Return a frame of a few such messages."""
        messages = [self.message(kinds) for _ in range(self.chance.choice((1, 1, 1, 2, 5)))]
        return framed(msgspec.msgpack.encode(messages))

    def greeting(self, opening: wire.Hello) -> bytes:
        """Return what stands where a hello should: one that is broken, or of others."""
        chance = self.chance
        fields = [wire.Hello.__struct_config__.tag, *msgspec.structs.astuple(opening)]
        odd = (inspect.IntType(), inspect.StrType(), inspect.BytesType(), inspect.NoneType())
        fields[chance.randrange(len(fields))] = self._value(chance.choice(odd))
        whole = framed(msgspec.msgpack.encode(fields))
        return chance.choice((whole, whole, self.broken(whole), self.noise()))

    def broken(self, frame: bytes) -> bytes:
        """Return a frame in which something is wrong."""
        chance, payload = self.chance, bytearray(frame[HEADER_BYTES:])
        match chance.randrange(6):
            case 0:
                for _ in range(chance.choice((1, 2, 10))):
                    payload[chance.randrange(len(payload))] = chance.randrange(256)
            case 1:
                del payload[chance.randrange(len(payload)) :]
            case 2:
                payload += chance.randbytes(chance.choice((1, 10, 1000)))
            case 3:
                payload[:0] = b"\x91" * chance.choice((1, 60, 5000))
            case 4:
                size = chance.choice((0, 1, FRAME_BYTES_MAX + 1, (1 << 31), (1 << 32) - 1))
                return size.to_bytes(HEADER_BYTES, "big") + payload
            case _:
                return frame[: chance.randrange(1, len(frame))]
        return framed(bytes(payload))

    def noise(self) -> bytes:
        """Return bytes of no protocol, or of another."""
        chance = self.chance
        return chance.choice(
            (
                chance.randbytes(chance.choice((1, 4, 100, 20_000))),
                bytes(chance.choice((4, 100, 70_000))),
                b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
                b"*1\r\n$4\r\nPING\r\n",
                b"\x16\x03\x01" + chance.randbytes(2) + b"\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
                b"\x16\x03\x01\x00\x05" * chance.choice((1, 1000)),
                b"\x15\x03\x03\x00\x02\x02\x28",
                b"\x17\x03\x03\x40\x00" + chance.randbytes(100),
            )
        )


def framed(payload: bytes) -> bytes:
    """Return a frame with this payload."""
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


def meaning(kinds: Any) -> Callable[[bytes], Sequence[Any]]:
    """Return what tells the messages that a server which takes these kinds finds in a frame, if any."""
    decoder = messages_decoder(kinds)

    def read(frame: bytes) -> Sequence[Any]:
        try:
            return decoder.decode(frame[HEADER_BYTES:])
        except (msgspec.MsgspecError, ValueError):
            return ()

    return read
