"""Callers of one store on a file, in a process that a test kills: `python -m tests.system.sqlite_writers`.

It takes its work as one line of JSON on stdin and tells of every operation on stdout at once: a line when it
is asked for, and one when its outcome is known. What was asked for and not told of may have been applied.
"""

import asyncio
import os
import random
import sys
import time

import msgspec
import trio

from greenroom import SessionData, SessionNotFoundError, SqliteStore
from greenroom.sqlite import files
from simulations.checks.linearizability import Operation
from tests.system.load import LIFETIME, Library


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does. `wal`: as with a SQLite that may use it."""

    path: str
    library: Library
    wal: bool
    round: int
    workers: int = 12
    sessions: int = 24


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line: the operation numbered so has begun, or ended if it has an outcome."""

    number: int
    operation: Operation


def tell(number: int, operation: Operation) -> None:
    """Write the line in one piece: a kill does not take what a system call has given away."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(Told(number=number, operation=operation)) + b"\n")


class Caller:
    """One caller: patches, reads, ends and makes sessions, one operation after the other."""

    numbers = 0

    def __init__(self, work: Work, number: int, store: SqliteStore) -> None:
        self._work = work
        self._store = store
        self._name = f"r{work.round}.{number}"
        self._rng = random.Random(f"{work.round}/{number}")
        self._values = 0

    async def go_on(self) -> None:
        """Work until the process is killed."""
        while True:
            await self._step(f"session-{self._rng.randrange(self._work.sessions):03}")

    async def _step(self, name: str) -> None:
        self._values += 1
        value = f"{self._name}-{self._values}"
        sku = f"sku-{self._rng.randrange(4)}"
        kind = self._rng.choices(("patch", "get", "delete"), (70, 20, 5))[0]
        common = {"client": self._name, "session": name, "key": name}
        match kind:
            case "patch":
                asked = Operation(kind="patch", invoked_ns=_now(), set=[(["cart", sku], value)], **common)
            case "get":
                asked = Operation(kind="get", invoked_ns=_now(), **common)
            case _:
                asked = Operation(kind="delete", invoked_ns=_now(), **common)
        if await self._told(asked) == "not_found":
            born = Operation(kind="create", invoked_ns=_now(), data={"born": value}, **common)
            await self._told(born)

    async def _told(self, asked: Operation) -> str:
        Caller.numbers += 1
        number = Caller.numbers
        tell(number, asked)
        reason, results = "", {}
        try:
            results = await self._perform(asked)
        except SessionNotFoundError:
            reason = "not_found"
        except Exception as error:  # anything else is a failure of the test
            if type(error).__name__ != "SessionExistsError":
                raise
            reason = "exists"
        outcome = "failed" if reason else "ok"
        done = msgspec.structs.replace(asked, completed_ns=_now(), outcome=outcome, reason=reason, **results)
        tell(number, done)
        return reason or ("not_found" if asked.kind == "get" and not results else "")

    async def _perform(self, asked: Operation) -> dict[str, object]:
        store, session_id = self._store, session_id_of(asked.session)
        match asked.kind:
            case "patch":
                patched = await store.patch(session_id, set={tuple(path): item for path, item in asked.set})
                return {"version": patched.version, "result": patched.data}
            case "get":
                found = await store.get(session_id)
                return {} if found is None else {"version": found.version, "result": found.data}
            case "delete":
                await store.delete(session_id)
                return {}
        return {"version": await store.create(new_session(session_id, asked.data or {}))}


def session_id_of(name: str) -> str:
    """Return an id that every process knows."""
    return f"{name}-of-the-writers"


def new_session(session_id: str, data: dict[str, object]) -> SessionData:
    """Return a session that outlives the test."""
    from datetime import UTC, datetime

    return SessionData(session_id=session_id, expires=datetime.now(UTC) + LIFETIME, data=data)


def _now() -> int:
    return time.monotonic_ns()


def main() -> None:
    """Do the work that the first line of stdin describes."""
    work = msgspec.json.decode(sys.stdin.readline(), type=Work)
    if work.wal:
        files.library_version = lambda: (3, 51, 3)
    store = SqliteStore(work.path, deadline_seconds=60)
    callers = [Caller(work, number, store) for number in range(work.workers)]

    async def under_asyncio() -> None:
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.go_on())

    async def under_trio() -> None:
        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(caller.go_on)

    if work.library == "trio":
        trio.run(under_trio)
    else:
        asyncio.run(under_asyncio())


if __name__ == "__main__":
    main()
