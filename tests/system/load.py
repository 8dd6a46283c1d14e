"""Load on a store from callers under asyncio and under trio, with every operation recorded.

`python -m tests.system.load` is one process of callers; `open_load` runs it beside a test and brings back its
history. A process takes its workload as one line of JSON on stdin, writes a line "ready" when every session
has been made or found, then works until its stdin is closed, looks at every session once more, and writes its
history to the file that the workload names.

Two kinds of session. Fixed ones have ids made from `seed`, so that several processes work on the same; they
are created, read, changed, deleted and created again. Own ones are known to one process alone, which also
rotates them and tries their dead ids. Every value written is unique, so that a result tells which write it
comes from.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import trio

import greenroom
from simulations.checks.linearizability import Kind, Operation, Outcome, Reason, read_history, write_history

Library = Literal["asyncio", "trio", "uvloop"]
REPOSITORY = Path(__file__).resolve().parents[2]
LIFETIME = timedelta(hours=1)
READY_SECONDS = 60.0
FINISH_SECONDS = 60.0
BLOCKED_SHARE = 0.01
SKUS = ("bowl", "lamp", "mug", "pan")


class Release(NamedTuple):
    """Callers of another release: the interpreter in whose environment it is, and what its store is told."""

    python: str
    url: str


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of callers does.

    `pause_seconds` is how long a worker waits between operations, on average. `stores` of them share the
    workers, each a client of its own to the cluster. A process told to end first does what lacks of
    `operations_min`, so that a slow machine is no light load. `reads` is how often it reads, where it patches
    30 times. Now and then it blocks its event loop, for up to `block_seconds`.
    """

    name: str
    library: Library
    url: str
    history: str
    workers: int = 8
    stores: int = 1
    fixed_sessions: int = 30
    own_sessions: int = 10
    operations_min: int = 100
    pause_seconds: float = 0.01
    block_seconds: float = 0.0
    reads: int = 30
    seed: int = 0


# --- recording -------------------------------------------------------------------------------------------


class Recorder:
    """Calls a store and keeps what was asked and what became of it."""

    def __init__(self, store: greenroom.BaseSessionStore, client: str, history: list[Operation]) -> None:
        self._store = store
        self._client = client
        self._history = history

    async def call(self, session: "LoadSession", kind: Kind, number: int, **more: Any) -> Operation:
        """Do one operation on the session's id of that number and record it.

        Errors that a store may raise are outcomes; anything else is a bug and goes through.
        """
        begun = time.monotonic_ns()
        outcome: Outcome = "ok"
        reason: Reason = ""
        results: dict[str, Any] = {}
        try:
            results = await self._perform(session, kind, session.ids[number], more)
        except greenroom.SessionExistsError:
            outcome, reason = "failed", "exists"
        except greenroom.SessionNotFoundError:
            outcome, reason = "failed", "not_found"
        except greenroom.VersionConflictError:
            outcome, reason = "failed", "conflict"
        except greenroom.UnavailableError:
            outcome, reason = "failed", "unavailable"
        except greenroom.OutcomeUnknownError:
            outcome = "unknown"
        operation = Operation(
            client=self._client,
            session=session.name,
            kind=kind,
            key=f"{session.name}/{number}",
            invoked_ns=begun,
            completed_ns=time.monotonic_ns(),
            outcome=outcome,
            reason=reason,
            **_recorded(more),
            **results,
        )
        self._history.append(operation)
        return operation

    async def _perform(
        self, session: "LoadSession", kind: Kind, session_id: str, more: dict[str, Any]
    ) -> dict[str, Any]:
        store = self._store
        match kind:
            case "create":
                return {"version": await store.create(_session(session_id, more["data"]))}
            case "get":
                found = await store.get(session_id)
                return {} if found is None else {"version": found.version, "result": found.data}
            case "update":
                changed = _session(session_id, more["data"])
                version = more.get("expected_version")
                return {"version": await store.update(session_id, changed, version=version)}
            case "delete":
                await store.delete(session_id)
                return {}
            case "patch":
                patched = await store.patch(session_id, **more)
                return {"version": patched.version, "result": patched.data}
            case "rotate":
                rotated = await store.rotate(session_id, **more)
                session.ids.append(rotated.session_id)
                new_key = f"{session.name}/{len(session.ids) - 1}"
                return {"version": rotated.version, "result": rotated.data, "new_key": new_key}


def _session(session_id: str, data: dict[str, Any]) -> greenroom.SessionData:
    return greenroom.SessionData(session_id=session_id, expires=datetime.now(UTC) + LIFETIME, data=data)


def _recorded(more: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as a history keeps them: paths as lists, an absent value as None."""
    recorded = dict(more)
    for name in ("set", "expect"):
        if name in more:
            recorded[name] = [
                (list(path), None if value is greenroom.ABSENT else value)
                for path, value in more[name].items()
            ]
    if "unset" in more:
        recorded["unset"] = [list(path) for path in more["unset"]]
    return recorded


# --- working ---------------------------------------------------------------------------------------------


class LoadSession:
    """A session under load: its name in the history, and its ids, the newest last."""

    def __init__(self, name: str, session_id: str, *, own: bool) -> None:
        self.name = name
        self.ids = [session_id]
        self.own = own

    def __repr__(self) -> str:
        return f"<LoadSession {self.name}>"


class Worker:
    """One caller: picks a session and an operation, again and again."""

    def __init__(
        self, name: str, recorder: Recorder, sessions: Sequence[LoadSession], rng: random.Random, reads: int
    ) -> None:
        self._reads = reads
        self._name = name
        self._recorder = recorder
        self._sessions = sessions
        self._rng = rng
        self._values = 0

    async def step(self) -> None:
        """Do one operation, or a read and a conditional write that rests on it."""
        session = self._rng.choice(self._sessions)
        number = len(session.ids) - 1
        if number and self._rng.random() < 0.1:
            number = self._rng.randrange(number)  # a dead id
        action = self._rng.choices(
            (self._get, self._patch, self._patch_if, self._update, self._update_if, self._end, self._rotate),
            (self._reads, 30, 10, 6, 6, 5, 6),
        )[0]
        await action(session, number)

    async def begin(self, session: LoadSession) -> None:
        """Make the session; that another process was faster is fine."""
        await self._recorder.call(session, "create", 0, data={"born": self._value()})

    async def look(self, session: LoadSession) -> None:
        """Read the session under each of its ids."""
        for number in range(len(session.ids)):
            await self._recorder.call(session, "get", number)

    async def _get(self, session: LoadSession, number: int) -> None:
        await self._recorder.call(session, "get", number)

    async def _patch(self, session: LoadSession, number: int) -> None:
        path = ("cart", self._rng.choice(SKUS))
        changes: dict[str, Any] = {"set": {path: self._value()}}
        if self._rng.random() < 0.2:
            changes = {"unset": [path]}
        await self._born_again(session, await self._recorder.call(session, "patch", number, **changes))

    async def _patch_if(self, session: LoadSession, number: int) -> None:
        read = await self._recorder.call(session, "get", number)
        if read.result is None:
            return
        sku = self._rng.choice(SKUS)
        held = read.result.get("cart", {}).get(sku, greenroom.ABSENT)
        path = ("cart", sku)
        await self._recorder.call(session, "patch", number, set={path: self._value()}, expect={path: held})

    async def _update(self, session: LoadSession, number: int) -> None:
        await self._recorder.call(session, "update", number, data={"cart": {SKUS[0]: self._value()}})

    async def _update_if(self, session: LoadSession, number: int) -> None:
        read = await self._recorder.call(session, "get", number)
        if read.result is None:
            return
        data = {**read.result, "last": self._value()}
        await self._recorder.call(session, "update", number, data=data, expected_version=read.version)

    async def _end(self, session: LoadSession, number: int) -> None:
        await self._recorder.call(session, "delete", number)

    async def _rotate(self, session: LoadSession, number: int) -> None:
        if session.own:
            await self._recorder.call(session, "rotate", number, set={("turned",): self._value()})
        else:
            await self._get(session, number)

    async def _born_again(self, session: LoadSession, operation: Operation) -> None:
        """Make a session that was found gone again, under its first id."""
        if operation.reason == "not_found" and self._rng.random() < 0.5:
            await self.begin(session)

    def _value(self) -> str:
        self._values += 1
        return f"{self._name}-{self._values}"


class Crew:
    """The sessions and workers of one process."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.history: list[Operation] = []
        self.stores = [greenroom.store_from_url(workload.url) for _ in range(workload.stores)]
        self._rng = random.Random(f"{workload.seed}/{workload.name}")
        self.sessions = [
            # An id of our own making, so that every process knows it; it is routed by its digest.
            LoadSession(f"fixed-{number}", f"load-{workload.seed}-{number:05}-fixed", own=False)
            for number in range(workload.fixed_sessions)
        ] + [
            LoadSession(f"{workload.name}-{number}", greenroom.new_session_id(), own=True)
            for number in range(workload.own_sessions)
        ]
        self.workers = [self._worker(number) for number in range(workload.workers)]

    def heed_hangups(self) -> None:
        """Read certificates anew on SIGHUP, from now on."""
        signal.signal(signal.SIGHUP, lambda *_: _reload(self.stores))

    def _worker(self, number: int) -> Worker:
        name = f"{self.workload.name}.{number}"
        recorder = Recorder(self.stores[number % len(self.stores)], name, self.history)
        rng = random.Random(self._rng.random())
        return Worker(name, recorder, self.sessions, rng, self.workload.reads)

    async def prepare(self) -> None:
        """Make every session."""
        for index, session in enumerate(self.sessions):
            await self.workers[index % len(self.workers)].begin(session)

    async def work(self, worker: Worker, wait: Callable[[float], Awaitable[bool]]) -> None:
        """Work until `wait`, which takes seconds, says that the end has come."""
        pause = self.workload.pause_seconds
        while not await wait(self._rng.uniform(0, 2 * pause)) or (
            len(self.history) < self.workload.operations_min
        ):
            if self.workload.block_seconds and self._rng.random() < BLOCKED_SHARE:
                self._block()
            await worker.step()

    def _block(self) -> None:
        """Keep the event loop from everything else, as a view that is no coroutine does."""
        time.sleep(self._rng.uniform(0, self.workload.block_seconds))

    async def finish(self) -> None:
        """Look at every session for the last time, and close."""
        for session in self.sessions:
            await self.workers[0].look(session)
        # A store of a former release has no such counts, and one in memory neither.
        near = [msgspec.to_builtins(store.near()) for store in self.stores if hasattr(store, "near")]
        for store in self.stores:
            await store.aclose()
        write_history(Path(self.workload.history), self.history)
        _near_file(self.workload).write_bytes(msgspec.json.encode(near))


def _near_file(workload: Workload) -> Path:
    """Return where a process leaves what its near caches have done."""
    return Path(f"{workload.history}.near")


async def _run_trio(workload: Workload) -> None:
    crew, over = Crew(workload), trio.Event()

    async def wait(seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await over.wait()
        return over.is_set()

    await crew.prepare()
    crew.heed_hangups()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        for worker in crew.workers:
            nursery.start_soon(crew.work, worker, wait)
        await trio.to_thread.run_sync(sys.stdin.read)
        over.set()
    await crew.finish()


async def _run_asyncio(workload: Workload) -> None:
    import asyncio

    crew, over = Crew(workload), asyncio.Event()

    async def wait(seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await over.wait()
        except TimeoutError:
            return False
        return True

    await crew.prepare()
    crew.heed_hangups()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as group:
        for worker in crew.workers:
            group.create_task(crew.work(worker, wait))
        await asyncio.to_thread(sys.stdin.read)
        over.set()
    await crew.finish()


def _reload(stores: Sequence[greenroom.BaseSessionStore]) -> None:
    """Read certificates anew, as an app does on SIGHUP, and say so."""
    used = [store.reload_tls() for store in stores if isinstance(store, greenroom.ClusterStore)]
    sys.stdout.write("reloaded\n" if all(used) else "refused\n")
    sys.stdout.flush()


def main() -> None:
    """Do the workload that the first line of stdin describes."""
    workload = msgspec.json.decode(sys.stdin.readline(), type=Workload)
    if workload.library == "trio":
        trio.run(_run_trio, workload)
    else:
        import asyncio

        run: Callable[..., None] = asyncio.run
        if workload.library == "uvloop":
            import uvloop

            run = uvloop.run
        run(_run_asyncio(workload))


# --- beside a test ---------------------------------------------------------------------------------------


class Load:
    """Processes of callers at work; after the block, their merged history and what the callers saw.

    `history` is empty until then, and `near`, what the near cache of each store has done. `errors` counts
    "unavailable" and "unknown"; what the state of a session forbids is no error.
    """

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self.near: list[dict[str, Any]] = []
        self.processes: list[tuple[Workload, trio.Process]] = []

    async def hang_up(self) -> None:
        """Have all callers read their certificates anew; return when they have."""
        for workload, process in self.processes:
            process.send_signal(signal.SIGHUP)
            await _wait_for(b"reloaded\n", workload, process)

    @property
    def errors(self) -> Counter[str]:
        """How often callers were told that an operation was not done, or not known to be."""
        return Counter(
            operation.reason or operation.outcome
            for operation in self.history
            if operation.outcome == "unknown" or operation.reason == "unavailable"
        )

    @property
    def acknowledged_writes(self) -> int:
        """How many changes were acknowledged."""
        return sum(operation.outcome == "ok" and operation.kind != "get" for operation in self.history)

    def longest_seconds(self) -> float:
        """Return how long the slowest operation took."""
        return (
            max((operation.completed_ns - operation.invoked_ns for operation in self.history), default=0)
            / 1e9
        )


@asynccontextmanager
async def open_load(
    url: str,
    directory: Path,
    *,
    libraries: Sequence[Library] = ("asyncio", "trio"),
    others: Sequence[Release] = (),
    enter: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Load]:
    """Put load on a store from one process per library while the body runs, under trio.

    Of each of the `others`, too. All of them work when the body begins. `options` are those of `Workload`;
    `enter` stands before the command of each, to run it elsewhere. Raises RuntimeError if a process fails.
    """
    load = Load()
    processes = load.processes
    try:
        for number, (release, library) in enumerate(
            product((Release(sys.executable, url), *others), libraries)
        ):
            name = f"{library}{number}"
            history = directory / f"history-{name}.jsonl"
            workload = Workload(name=name, library=library, url=release.url, history=str(history), **options)
            processes.append((workload, await _started(workload, (*enter, release.python))))
        for workload, process in processes:
            with trio.fail_after(READY_SECONDS):
                await _wait_for(b"ready\n", workload, process)
        yield load
        for _, process in processes:
            assert process.stdin is not None
            await process.stdin.aclose()
        for workload, process in processes:
            with trio.fail_after(FINISH_SECONDS):
                if await process.wait() != 0:
                    raise RuntimeError(f"the load {workload.name} failed; see its standard error")
            load.history += read_history(Path(workload.history))
            load.near += msgspec.json.decode(_near_file(workload).read_bytes())
        load.history.sort(key=lambda operation: operation.invoked_ns)
    finally:
        for _, process in processes:
            if process.poll() is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def _started(workload: Workload, python: Sequence[str]) -> trio.Process:
    process = await trio.lowlevel.open_process(
        (*python, "-m", "tests.system.load"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdin is not None
    await process.stdin.send_all(msgspec.json.encode(workload) + b"\n")
    return process


async def _wait_for(line: bytes, workload: Workload, process: trio.Process) -> None:
    assert process.stdout is not None
    received = b""
    while not received.endswith(line):
        chunk = await process.stdout.receive_some()
        if not chunk:
            raise RuntimeError(
                f"the load {workload.name} ended before it said {line!r}; see its standard error"
            )
        received += chunk


if __name__ == "__main__":
    main()
