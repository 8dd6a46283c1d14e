"""Starts processes, watches them, and starts them again.

tractor, known only to this module and those behind `hardening`, spawns a process, runs a function in it and
carries messages; session traffic never passes here. This module fills gaps that were seen in 0.1.0a5: a
killed or stopped child goes unnoticed, and teardown waits for children that never answer. So a pidfd reports
a death within milliseconds, heartbeats reveal a hang, and a process is always ended by SIGKILL through its
pidfd before tractor tears down what belonged to it.

One for one: a child that ends is started again alone, after the pause that the restart policy demands, as a
new incarnation. If a child keeps ending, restarting does not help: the supervisor gives up with
`RestartLimitError`, and its own supervisor decides.

Prior art: Erlang/OTP's supervisor behaviour (one_for_one, intensity and period).
"""

import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import structlog
import trio

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster import logs
from greenroom_cluster.keeper import WATCH_SECONDS, Keeper, SupervisionSettings
from greenroom_cluster.privacy import keep_to_itself
from greenroom_cluster.restarts import GiveUp, RestartSettings
from greenroom_cluster.runtime import supervised
from greenroom_cluster.runtime.documents import encode_settings
from greenroom_cluster.runtime.hardening import (
    become_child,
    check_listeners,
    open_root,
    release_starter,
    start_process,
    tractor,
)
from greenroom_cluster.runtime.listening import listeners
from greenroom_cluster.runtime.processes import RESTART_HINT, ProcessHandle, children_of, command_line
from greenroom_cluster.runtime.reloading import reload_all
from greenroom_cluster.runtime.starter import current
from greenroom_cluster.runtime.tasks import open_tasks, ungrouped

_log = structlog.get_logger("greenroom.supervision")

_FIND_SECONDS = 0.02


class RestartLimitError(GreenroomError):
    """A supervised process ended too often in too short a time; its supervisor gives up."""


class ChildSpec(msgspec.Struct, frozen=True):
    """One named child: `target(settings, started)` is an async function that another process can import.

    `settings` returns the settings of an incarnation, a msgspec struct. The function calls `started(address)`
    once it serves, see `supervised.Started`.
    """

    name: str
    target: Callable[..., Any]
    settings: Callable[[bytes], msgspec.Struct]


class ChildProcess:
    """One incarnation of a child. `exit_status` is negative for a signal, None while it lives.

    `disk` is what it keeps there, as it said when it was ready. `question` is set to have it asked for
    readings, and `answered` once `readings` have come; it is None while nobody waits for any.
    """

    __slots__ = (
        *("address", "answered", "disk", "exit_status", "handle"),
        *("incarnation", "name", "question", "readings"),
    )

    def __init__(self, name: str, incarnation: bytes) -> None:
        self.name = name
        self.incarnation = incarnation
        self.handle: ProcessHandle | None = None
        self.address = ""
        self.disk = supervised.Standing()
        self.exit_status: int | None = None
        self.question = trio.Event()
        self.answered: trio.Event | None = None
        self.readings = b""

    @property
    def ready(self) -> bool:
        """Whether it has said that it serves."""
        return bool(self.address)

    @property
    def pid(self) -> int:
        """Its process id; 0 before its start."""
        return self.handle.pid if self.handle is not None else 0

    @property
    def started_ticks(self) -> int:
        """When it started, in clock ticks since boot; with the process id, its name on this host."""
        return self.handle.started_ticks if self.handle is not None else 0


@tractor.context  # type: ignore[untyped-decorator]  # tractor has no type information
async def child_main(
    ctx: tractor.Context,
    target: str,
    settings_type: str,
    settings: bytes,
    beat_seconds: float,
    log_settings: dict[str, str],
    name: str,
    supervisor_pid: int,
) -> None:
    """Run a child's function; tractor calls this in the process. `name` is the child's."""
    become_child(supervisor_pid)
    keep_to_itself()
    logs.configure(msgspec.convert(log_settings, logs.LogSettings), name)
    try:
        check_listeners(frozenset(), listeners())
    except RuntimeError as error:
        _log.critical("process_exposed", reason=str(error))
        supervised.leave(supervised.EXIT_FAILED)
    await ctx.started(None)
    async with ctx.open_stream() as stream:
        await supervised.run_supervised(stream, target, settings_type, settings, beat_seconds)


class Supervisor:
    """Keeps named children running. Made by `open_supervisor`.

    `on_ready(child)` and `on_exit(child)` are called immediately, and must not block.
    """

    def __init__(
        self,
        tasks: trio.Nursery,
        *,
        settings: SupervisionSettings,
        log_settings: logs.LogSettings,
        restarts: RestartSettings,
        on_ready: Callable[[ChildProcess], None],
        on_exit: Callable[[ChildProcess], None],
    ) -> None:
        self._tasks = tasks
        self._settings = settings
        self._log_settings = log_settings
        self._restarts = restarts
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._stopping = trio.Event()
        self._reload = trio.Event()
        self._running: dict[str, ChildProcess] = {}
        self._keepers: dict[str, Keeper] = {}
        self._keeping = 0
        self._idle = trio.Event()
        self._idle.set()
        self.failure: RestartLimitError | UsageError | None = None
        self.starts: Counter[str] = Counter()
        """How often each child was started."""

    async def ask(self, name: str, seconds: float) -> bytes | None:
        """Return a child's readings; None if it does not answer in time, or does not run."""
        child = self._running.get(name)
        if child is None:
            return None
        if child.answered is None:  # else a question is under way, which a child that hangs gets once
            child.answered = trio.Event()
            child.question.set()
        answered = child.answered
        with trio.move_on_after(seconds):
            await answered.wait()
        return child.readings if answered.is_set() else None

    @property
    def children(self) -> dict[str, ChildProcess]:
        """The incarnation of each child that runs now or is being started."""
        return dict(self._running)

    def start_child(self, spec: ChildSpec) -> None:
        """Start a child and keep it running. Raises ValueError if the name is taken."""
        if spec.name in self._running:
            raise ValueError(f"there is a child named {spec.name!r} already")
        self._running[spec.name] = ChildProcess(spec.name, b"")
        self._keeping += 1
        self._idle = trio.Event()
        self._tasks.start_soon(self._keep, spec)

    async def stop(self) -> None:
        """Stop all children: ask, then SIGKILL after `stop_seconds`. Returns when all are gone."""
        self._start_no_more()
        await self._idle.wait()

    def reload(self) -> None:
        """Have this process and all children read their certificates anew."""
        reload_all()
        # Those who start now, read what is there now.
        self._reload.set()
        self._reload = trio.Event()

    def kill(self) -> None:
        """SIGKILL all children for good."""
        self._start_no_more()
        for child in self._running.values():
            if child.handle is not None:
                child.handle.kill()

    def kill_child(self, name: str) -> None:
        """SIGKILL one child; it is started again as a new incarnation. Unknown names are fine."""
        child = self._running.get(name)
        if child is not None and child.handle is not None:
            child.handle.kill()

    def _start_no_more(self) -> None:
        self._stopping.set()
        for keeper in self._keepers.values():
            keeper.stop()

    async def _keep(self, spec: ChildSpec) -> None:
        chance = random.Random(os.urandom(16))  # noqa: S311  jitter
        keeper = self._keepers[spec.name] = Keeper(spec.name, self._settings, self._restarts, chance)
        try:
            while not self._stopping.is_set():
                child = ChildProcess(spec.name, os.urandom(16))
                self.starts[spec.name] += 1
                self._running[spec.name] = child
                keeper.start(time.monotonic_ns())
                await self._run(spec, child)
                verdict = keeper.exited(time.monotonic_ns())
                if verdict is None:
                    break
                if isinstance(verdict, GiveUp):
                    self._give_up(child, verdict.reason)
                    break
                with trio.move_on_after(verdict.delay_ns / 1e9):
                    await self._stopping.wait()
        finally:
            self._running.pop(spec.name, None)
            self._keeping -= 1
            if not self._keeping:
                self._idle.set()

    def _give_up(self, child: ChildProcess, reason: str) -> None:
        self.failure = RestartLimitError(reason)
        _log.error("restart_limit_reached", process=child.name, exit_status=child.exit_status)
        self._tasks.cancel_scope.cancel()

    async def _run(self, spec: ChildSpec, child: ChildProcess) -> None:
        """Start one incarnation and return when its process is dead and reaped."""
        conversation = trio.CancelScope()
        try:
            async with tractor.open_nursery() as processes, open_tasks() as tasks:
                failed = trio.Event()
                tasks.start_soon(self._start, processes, spec, child, conversation, failed)
                try:
                    handle = child.handle = await self._find(child, failed)
                    if handle is not None:
                        tasks.start_soon(self._end_on_stop, child)
                        tasks.start_soon(self._end_on_hang, child, failed)
                        await handle.wait_exited()
                        await self._exited(child, handle)
                finally:
                    # Also when this supervisor is cancelled: tractor then finds a dead process and need not
                    # wait for it.
                    if child.handle is None:
                        child.handle = self._look_for(child)
                    if child.handle is not None:
                        child.handle.kill()
                    conversation.cancel()
                    release_starter(processes)
                    tasks.cancel_scope.cancel()
        except Exception:  # noqa: BLE001  tractor's trouble with one process is not the others'
            _log.exception("process_failed", process=child.name)
        finally:
            if child.handle is not None:
                child.handle.close()

    async def _exited(self, child: ChildProcess, handle: ProcessHandle) -> None:
        """Log and report the end of a process. tractor reaps it when its nursery closes, or its starter."""
        child.exit_status = handle.exit_status()
        if child.exit_status is None and (starter := current()) is not None:
            child.exit_status = await starter.status_of(handle.pid)
        fields = {
            "process": child.name,
            "pid": child.pid,
            "incarnation": child.incarnation.hex(),
            "exit_status": child.exit_status,
        }
        if self._stopping.is_set():
            _log.info("process_ended", **fields)
        else:
            _log.warning("process_ended", **fields, hint=RESTART_HINT)
        self._on_exit(child)

    async def _start(
        self,
        processes: Any,
        spec: ChildSpec,
        child: ChildProcess,
        conversation: trio.CancelScope,
        failed: trio.Event,
    ) -> None:
        try:
            portal = await start_process(processes, f"{child.name}-{child.incarnation.hex()}", __name__)
        except Exception as error:  # noqa: BLE001  whatever it was, the restart policy decides what follows
            _log.error("process_not_started", process=child.name, error=repr(error))
            failed.set()
            return
        # In the supervisor's nursery, not this incarnation's: tractor may take half a second to tear it down,
        # and the next incarnation need not wait for that.
        self._tasks.start_soon(self._converse, portal, spec, child, conversation, failed)

    async def _converse(
        self,
        portal: Any,
        spec: ChildSpec,
        child: ChildProcess,
        conversation: trio.CancelScope,
        failed: trio.Event,
    ) -> None:
        settings = spec.settings(child.incarnation)
        try:
            with conversation:
                async with (
                    portal.open_context(
                        child_main,
                        target=supervised.reference_to(spec.target),
                        settings_type=supervised.reference_to(type(settings)),
                        settings=encode_settings(settings),
                        beat_seconds=self._settings.beat_seconds,
                        log_settings=msgspec.to_builtins(self._log_settings),
                        name=child.name,
                        supervisor_pid=os.getpid(),
                    ) as (context, _),
                    context.open_stream() as stream,
                    open_tasks() as tasks,
                ):
                    tasks.start_soon(self._send_stop, stream)
                    tasks.start_soon(self._send_reloads, stream)
                    tasks.start_soon(self._send_questions, stream, child)
                    async for message in stream:
                        self._heard(child, message)
        except Exception as error:  # noqa: BLE001  a broken conversation ends this incarnation only
            _log.debug("conversation_ended", process=child.name, error=repr(error))
        failed.set()

    def _heard(self, child: ChildProcess, message: dict[str, Any]) -> None:
        if self._running.get(child.name) is child:
            goes_on = bool(message.get("goes_on"))
            self._keepers[child.name].heard(ready="ready" in message, goes_on=goes_on)
        if "ready" in message and not child.ready:
            child.address = message["ready"]
            told = {key: value for key, value in message.items() if key != "ready"}
            child.disk = msgspec.convert(told, supervised.Standing)
            _log.info(
                "process_ready",
                process=child.name,
                pid=child.pid,
                incarnation=child.incarnation.hex(),
                address=child.address,
            )
            self._on_ready(child)
        elif "readings" in message and child.answered is not None:
            child.readings = message["readings"]
            answered, child.answered = child.answered, None
            answered.set()
        elif "refused" in message and child.ready:
            # It has served, so it may again once the operator has done what this says.
            _log.error("process_refused", process=child.name, pid=child.pid, reason=message["refused"])
        elif "refused" in message:
            self.failure = UsageError(message["refused"])
            self._tasks.cancel_scope.cancel()

    async def _send_stop(self, stream: Any) -> None:
        await self._stopping.wait()
        await stream.send({"stop": True})

    async def _send_questions(self, stream: Any, child: ChildProcess) -> None:
        while True:
            await child.question.wait()
            child.question = trio.Event()
            await stream.send({"ask": True})

    async def _send_reloads(self, stream: Any) -> None:
        while True:
            await self._reload.wait()
            await stream.send({"reload": True})

    async def _end_on_stop(self, child: ChildProcess) -> None:
        await self._stopping.wait()
        await trio.sleep(self._keepers[child.name].stop())
        assert child.handle is not None
        child.handle.kill()

    async def _end_on_hang(self, child: ChildProcess, failed: trio.Event) -> None:
        """Kill a child that hangs, or whose conversation ended."""
        assert child.handle is not None
        while not failed.is_set():
            with trio.move_on_after(WATCH_SECONDS):
                await failed.wait()
            if self._keepers[child.name].hangs(time.monotonic_ns()):
                _log.warning("process_hangs", process=child.name, pid=child.pid, ready=child.ready)
                break
        child.handle.kill()

    async def _find(self, child: ChildProcess, failed: trio.Event) -> ProcessHandle | None:
        """Wait until the process of an incarnation exists; None if it cannot be started.

        tractor reports a process only once it has connected, and waits forever for one that never does.
        """
        while True:
            handle = self._look_for(child)
            if handle is not None or failed.is_set():
                return handle
            with trio.move_on_after(_FIND_SECONDS):
                await failed.wait()

    def _look_for(self, child: ChildProcess) -> ProcessHandle | None:
        marker = child.incarnation.hex()
        starter = current()
        if starter is not None:
            forked = starter.find(marker)
            if forked is not None or not starter.gone:
                return forked
        for pid in children_of(os.getpid()):
            if any(marker in argument for argument in command_line(pid)):
                with suppress(ProcessLookupError):
                    return ProcessHandle(pid)
        return None


@asynccontextmanager
async def open_supervisor(
    name: str,
    *,
    restarts: RestartSettings,
    on_ready: Callable[[ChildProcess], None],
    on_exit: Callable[[ChildProcess], None],
    settings: SupervisionSettings | None = None,
    log_settings: logs.LogSettings | None = None,
) -> AsyncIterator[Supervisor]:
    """Run a supervisor around the body; when the body ends, its children are stopped.

    Raises, after cancelling the body, RestartLimitError if a child ends too often, and UsageError if one says
    that its settings are impossible.
    """
    supervisor: Supervisor | None = None
    before = listeners()
    with ungrouped():
        async with open_root(name), open_tasks() as tasks:
            check_listeners(before, listeners())
            supervisor = Supervisor(
                tasks,
                settings=settings or SupervisionSettings(),
                log_settings=log_settings or logs.LogSettings(),
                restarts=restarts,
                on_ready=on_ready,
                on_exit=on_exit,
            )
            try:
                yield supervisor
                await supervisor.stop()
            finally:
                supervisor.kill()
                tasks.cancel_scope.cancel()
    if supervisor.failure is not None:
        raise supervisor.failure
