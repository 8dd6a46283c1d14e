"""Checks that replicas decide alike: two tables get the same hostile commands, and must come out equal.

The second table applies each command below a deeper stack, and, if another Python is given, a third one in
a process of that version. After every command its reply, its kept reply and all sessions are compared, after
every thousand the fingerprints of the tables. Commands skip admission on purpose: what once stands in a log,
every replica must decide alike, whatever let it in.

`python -m simulations.studies.deciding` is the process of the other version: it reads batches of records, and
answers with a digest of what each left behind.
"""

import multiprocessing
import os
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import msgspec

from greenroom import wire
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.table import SessionTable

BATCH = 1000
FRAMES = (0, 40, 300, 600)
_EXPIRES_US = 10**15
_DIGESTS = tuple(bytes([number]) * 32 for number in range(4))
_CLIENTS = (b"a" * 16, b"b" * 16)
_encode = msgspec.msgpack.Encoder().encode
_ENDS = (
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\x00",
    b"\x01",
    b"\xff",
    b"\xcc\x01",
    b"\xcc\x80",
    b"\xd0\x01",
    b"\xcd\x00\x01",
)
_FLOATS = (0.0, -0.0, 1.0, float("nan"), float("inf"))
_TEXTS = (
    b"\xa0",
    b"\xa1a",
    b"\xa1b",
    b"\xa1\xff",
    b"\xd9\x01a",
    b"\xa3\xed\xa0\x80",
    b"\xa2\xc3\xbc",
    b"\xc4\x01a",
)
_KEYS: tuple[wire.Key, ...] = ("a", "b", "", 0, 1, -5, 2**40)
_CODED = tuple(map(_encode, _KEYS))


class Difference(Exception):  # noqa: N818  what is looked for, not a mistake of ours
    """Two tables came out unequal."""


class Commands:
    """An endless log of hostile commands, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._sequence = 0

    def __iter__(self) -> Iterator[Record]:
        while True:
            self._sequence += 1
            client = self._chance.choice(_CLIENTS)
            # All answers but the newest are confirmed, or comparing would take ever longer.
            yield Record(1, self._sequence, self._sequence, client, self._command(self._sequence))

    def _command(self, number: int) -> Any:
        chance = self._chance
        kind = chance.randrange(10)
        digest = chance.choice(_DIGESTS)
        if kind == 0:
            return wire.Create(number, number, 0, 0, digest, "u", 1, _EXPIRES_US, None, "", self._data())
        if kind == 1:
            return wire.Update(number, number, 0, 0, digest, None, _EXPIRES_US, "", self._data(), None)
        set_, unset = self._values(0), tuple(self._path() for _ in range(chance.randrange(3)))
        if kind == 2:
            other = chance.choice(_DIGESTS)
            return wire.Rotate(number, number, 0, 0, digest, other, set_, unset, None, None)
        if kind == 3 and not chance.randrange(10):
            return wire.Delete(number, number, 0, 0, digest)
        expect = self._values(chance.choice((0, 0, 3)))
        return wire.Patch(number, number, 0, 0, digest, set_, unset, expect, None, None)

    def _values(self, absent: int) -> tuple[wire.PathValue, ...]:
        chance = self._chance
        return tuple(
            (self._path(), b"" if absent and chance.randrange(3) else self._value(4))
            for _ in range(chance.choice((0, 1, 1, 2)))
        )

    def _path(self) -> wire.Path:
        chance = self._chance
        length = chance.choice((1, 1, 1, 2, 2, 3, 0, 63, 64, 65)) if not chance.randrange(4) else 1
        return tuple(chance.choice(_KEYS) for _ in range(length))

    def _data(self) -> bytes:
        """Return data that is mostly a sound map: patches to anything else would all be refused."""
        chance = self._chance
        if not chance.randrange(6):
            return self._value(5)
        keys = chance.sample(range(len(_CODED)), chance.randrange(1, len(_CODED)))
        parts = [bytes((0x80 + len(keys),))]
        for key in keys:
            parts += (_CODED[key], self._value(3) if not chance.randrange(6) else self._sound(3))
        data = b"".join(parts)
        # Above and below the sizes from which it is read in another way.
        return data if chance.randrange(12) else self._longer(data, len(keys))

    def _longer(self, data: bytes, count: int) -> bytes:
        size = self._chance.choice((900, 2600, 20_000))
        return bytes((0x81 + count,)) + data[1:] + b"\xa6filler\xc5" + struct.pack(">H", size) + bytes(size)

    def _sound(self, levels: int) -> bytes:
        chance = self._chance
        kind = chance.randrange(7)
        if kind < 3 or levels == 0:
            return _encode(chance.choice((None, True, 1, 1.0, "a", b"a", 300, -0.0, 0.0, "ü")))
        if kind == 3:
            items = [self._sound(levels - 1) for _ in range(chance.randrange(4))]
            return bytes((0x90 + len(items),)) + b"".join(items)
        if kind == 4:
            return _encode(msgspec.msgpack.Ext(8, b"\x92" + b"\xa1a" + chance.choice((b"\x01", b"\xa1b"))))
        keys = chance.sample(range(len(_CODED)), chance.randrange(4))
        return bytes((0x80 + len(keys),)) + b"".join(_CODED[key] + self._sound(levels - 1) for key in keys)

    def _value(self, levels: int) -> bytes:
        """Return a value that is sound, nearly sound, or broken."""
        chance = self._chance
        kind = chance.randrange(14)
        if levels == 0 or kind < 3:
            return chance.choice(
                (chance.choice(_ENDS), chance.choice(_TEXTS), _encode(chance.choice(_FLOATS)))
            )
        if kind < 6:
            return self._sound(levels)
        if kind == 6:
            items = [self._value(levels - 1) for _ in range(chance.randrange(4))]
            return bytes((0x90 + len(items),)) + b"".join(items)
        if kind == 7:
            return self._map([chance.choice(_CODED) for _ in range(chance.randrange(4))], levels)
        if kind == 8:
            return self._map([self._value(levels - 1) for _ in range(chance.randrange(3))], levels)
        if kind == 9:
            payload = chance.choice((b"", b"x", bytes(16), b"\x91" + self._value(levels - 1)))
            return _encode(msgspec.msgpack.Ext(chance.randrange(-2, 13), payload))
        if kind == 10:
            return self._deep()
        if kind == 11 and not chance.randrange(20):
            step = chance.choice((1, 1 << 20, (1 << 61) - 1))
            keys = [_encode(number * step & (2**63 - 1)) for number in range(chance.choice((40, 300, 1100)))]
            return b"\xde" + struct.pack(">H", len(keys)) + b"".join(key + b"\x01" for key in keys)
        return self._damaged(self._sound(levels))

    def _map(self, keys: list[bytes], levels: int) -> bytes:
        return bytes((0x80 + len(keys),)) + b"".join(key + self._value(levels - 1) for key in keys)

    def _deep(self) -> bytes:
        """Return data nested about as deep as allowed, perhaps hidden by a duplicate, a key or a set."""
        chance = self._chance
        levels = chance.choice((5, 6, 61, 62, 63, 64, 65, 66, 300, 900, 960, 990, 1500))
        start = chance.choice((b"\x91", b"\x81\xa1a", b"\x81\x01"))
        nested = start * levels + chance.choice((b"\xc0", b"\x90", b"\x80", b""))
        hidden = chance.randrange(5)
        if hidden == 0:
            return b"\x82\xa1a" + nested + b"\xa1a\x00"
        if hidden == 1:
            return b"\x81" + nested + b"\x00"
        return _encode(msgspec.msgpack.Ext(8, b"\x91" + nested)) if hidden == 2 else nested

    def _damaged(self, data: bytes) -> bytes:
        chance = self._chance
        place = chance.randrange(len(data))
        return data[:place] + chance.choice(
            (b"", chance.randbytes(1), chance.randbytes(1) + data[place + 1 :])
        )


def below(frames: int, call: Callable[[], Any]) -> Any:
    """Call with so many frames below."""
    return call() if frames == 0 else below(frames - 1, call)


class OtherPython:
    """The table of a process of another version of Python."""

    def __init__(self, python: str) -> None:
        root = Path(__file__).parents[2]
        path = os.pathsep.join(str(root / part) for part in ("", "store", "cluster"))
        self._process = subprocess.Popen(  # noqa: S603  the operator's own choice
            [python, "-m", "simulations.studies.deciding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )

    def traces(self, records: list[Record]) -> list[bytes]:
        """Return the trace of each of these, and the fingerprint of its table in the end.

        Raises Difference if the process ended.
        """
        # Not as on the wire, where a decoder would refuse some of them.
        batch = pickle.dumps(records)
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None
        assert source is not None
        with suppress(BrokenPipeError):  # found below
            sink.write(len(batch).to_bytes(4, "big") + batch)
            sink.flush()
        answer = source.read(16 * len(records) + 16)
        if len(answer) < 16 * len(records) + 16:
            raise Difference(f"the other Python ended after {len(answer) // 16} of {len(records)} commands")
        return [answer[start : start + 16] for start in range(0, len(answer), 16)]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _left(table: SessionTable, record: Record, reply: Any) -> tuple[Any, ...]:
    """Return the reply to a command and its traces, without the sessions."""
    client = table.clients.get(record.client)
    kept = None if client is None else client.replies.get(record.command.request_id)  # type: ignore[union-attr]  # all have one
    return reply, kept, tuple(table.users.newest("u"))


def _trace(table: SessionTable, record: Record, reply: Any) -> bytes:
    """Return a digest of what a command left behind, with the sessions that it named."""
    command: Any = record.command
    names = (command.digest, getattr(command, "new_digest", command.digest))
    stored = [table.sessions.get(name) for name in names]
    return blake2b(_encode((*_left(table, record, reply), stored)), digest_size=16).digest()


def decide(commands: int, seed: int = 0, python: str | None = None) -> dict[str, int]:
    """Apply so many commands to all tables, and return how many were decided in which way.

    Raises Difference at the first command after which two tables are unequal.
    """
    shallow, deep = SessionTable(), SessionTable()
    log, frames = iter(Commands(seed)), random.Random(seed)
    other = None if python is None else OtherPython(python)
    outcomes: dict[str, int] = {}
    try:
        while commands > 0:
            batch = [next(log) for _ in range(min(BATCH, commands))]
            commands -= len(batch)
            traces = []
            for record in batch:
                reply = shallow.apply(record)
                other_reply = below(frames.choice(FRAMES), lambda: deep.apply(record))  # noqa: B023  called at once
                if shallow.sessions != deep.sessions or _left(shallow, record, reply) != _left(
                    deep, record, other_reply
                ):
                    raise Difference(
                        f"seed {seed}: command {record.sequence} below a deeper stack: {record!r}"
                    )
                if other is not None:
                    traces.append(_trace(shallow, record, reply))
                outcomes[_outcome(reply)] = outcomes.get(_outcome(reply), 0) + 1
            traces.append(shallow.fingerprint())
            if traces[-1] != deep.fingerprint():
                raise Difference(f"seed {seed}: by command {batch[-1].sequence}, below a deeper stack")
            if other is not None:
                for record, mine, theirs in zip(
                    (*batch, batch[-1]), traces, other.traces(batch), strict=True
                ):
                    if mine != theirs:
                        raise Difference(
                            f"seed {seed}: command {record.sequence} in the other Python: {record!r}"
                        )
    finally:
        if other is not None:
            other.close()
    return outcomes


def decide_in_parallel(commands: int, seed: int, python: str | None, jobs: int) -> dict[str, int]:
    """Do as `decide` in so many processes, each with its part of the commands and a seed of its own."""
    parts = [(commands // jobs + (job < commands % jobs), seed + job, python) for job in range(jobs)]
    outcomes: dict[str, int] = {}
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for found in pool.starmap(decide, parts):
            for outcome, count in found.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
    return outcomes


def _outcome(reply: Any) -> str:
    return wire.FailureCode(reply.code).name if isinstance(reply, wire.Failed) else type(reply).__name__


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    table = SessionTable()
    while head := source.read(4):
        batch: list[Record] = pickle.loads(source.read(int.from_bytes(head, "big")))  # noqa: S301  our own
        for record in batch:
            sink.write(_trace(table, record, table.apply(record)))
        sink.write(table.fingerprint())
        sink.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
