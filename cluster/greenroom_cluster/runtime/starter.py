"""A process that has imported what a supervisor's children run, and forks them: a start without imports.

Most of what a start takes is imports, and most of the memory of a process that has just started is what these
brought. A process that was forked shares both with its starter. The starter itself is forked by
`open_starter`, before the supervisor runs anything or reads a key: it has one thread and no secrets, keeps no
file open, and does nothing but wait. It ends with its supervisor.

What it forks is its child, not the supervisor's. So it reaps, and tells how they ended. What was forked
begins its work once the supervisor has been told of it, so that none runs of which nobody knows. Where the
starter is gone, or does not answer, a supervisor starts its children as ever, by a command.

Prior art: the zygotes of Android and Chromium, and the fork server of Python's multiprocessing.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Self, TypeAlias

import msgspec
import structlog
import trio

from greenroom_cluster.privacy import keep_to_itself
from greenroom_cluster.runtime.processes import (
    EXIT_ORPHANED,
    ProcessHandle,
    command_line,
    leave_signals,
    own_start_ticks,
    retitle,
)

_ANSWER_SECONDS = 5.0
_MESSAGE_BYTES_MAX = 65_536
_FDS_MAX = 2
_EXIT_FAILED = 70
_STDERR = 2
_TICKS_BYTES = 8
_GO = b"1"
_TITLE = ("greenroom", "starter")

_log = structlog.get_logger("greenroom.supervision")

CHILD, MEMBER = "child", "member"
"""What is forked: a supervisor's child, or a member of a local cluster."""

Entry = Callable[[list[str], list[int]], None]
"""What a forked process runs, given its arguments and descriptors; it does not return to the starter.

The last descriptor is a pidfd of the supervisor.
"""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Fork a process that runs the entry of this name with these arguments. Descriptors come beside it."""

    entry: str
    title: str
    arguments: list[str]


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """The process that was asked for. It reads itself when it started: /proc may hide it from others."""

    pid: int
    started_ticks: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A process has ended so: its status, negative for a signal."""

    pid: int
    status: int


class StarterGoneError(Exception):
    """The starter does not answer, and is not asked any more."""


# --- in the supervisor -----------------------------------------------------------------------------------


class Process:
    """A process that was forked for this one, with what tractor and ours ask of a `trio.Process`."""

    def __init__(self, starter: "Starter", handle: ProcessHandle, title: str) -> None:
        self.pid = handle.pid
        self.title = title
        self.handle = handle
        self.returncode: int | None = None
        self._starter = starter

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title!r} pid {self.pid}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, as `trio.Process` does."""
        with trio.CancelScope(shield=True):
            self.kill()
            await self.wait()
            self.release()

    def release(self) -> None:
        """Drop what is held of it, once it has ended."""
        self._starter.forget(self)

    async def wait(self) -> int | None:
        """Return how it ended once it has; None if nobody can tell any more."""
        if not self.handle.exited():
            await self.handle.wait_exited()
        if self.returncode is None:
            self.returncode = await self._starter.status_of(self.pid)
        return self.returncode

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        if self.returncode is None and self.handle.exited():
            return _EXIT_FAILED  # nobody has asked yet how
        return self.returncode

    def kill(self) -> None:
        """SIGKILL it."""
        self.handle.kill()

    def terminate(self) -> None:
        """SIGTERM it, as tractor does to what it gives up."""
        self.handle.signal(signal.SIGTERM)


class Starter:
    """This process's end of its starter; made by `open_starter`."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        control.setblocking(False)  # noqa: FBT003  as sockets have it
        self.pid = pid
        self._control = control
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._turn = trio.Lock()
        self._statuses: dict[int, int] = {}
        self._forked: list[ProcessHandle] = []
        self._processes: list[Process] = []
        self._gone = False

    async def start(self, entry: str, title: str, arguments: Sequence[str], fds: Sequence[int]) -> Process:
        """Fork a process that runs an entry. Raises StarterGoneError."""
        # Shielded: who is cancelled here would leave behind a process that nobody knows.
        with trio.CancelScope(shield=True):
            async with self._turn:
                request = msgspec.msgpack.encode(Start(entry, title, list(arguments)))
                try:
                    if self._gone:
                        raise StarterGoneError
                    socket.send_fds(self._control, [request], [*fds, self._own_pidfd])
                    with trio.fail_after(_ANSWER_SECONDS):
                        while not self._forked:
                            await self._receive()
                except (OSError, trio.TooSlowError):
                    self._give_up()
                    raise StarterGoneError from None
                process = Process(self, self._forked.pop(), title)
                self._processes.append(process)
                return process

    @property
    def gone(self) -> bool:
        """Whether it is not asked any more."""
        return self._gone

    def find(self, part: str) -> ProcessHandle | None:
        """Return a handle of the process in whose title this stands; None if there is none."""
        for process in self._processes:
            if part in process.title:
                return process.handle.copy()
        return None

    def forget(self, process: Process) -> None:
        """Drop a process that has ended."""
        if process in self._processes:
            self._processes.remove(process)
            process.handle.close()

    async def status_of(self, pid: int) -> int | None:
        """Return how a process that has ended did so; None if the starter does not tell."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                with trio.move_on_after(_ANSWER_SECONDS), suppress(OSError, StarterGoneError):
                    while pid not in self._statuses and not self._gone:
                        await self._receive()
                return self._statuses.get(pid)

    async def _receive(self) -> None:
        await trio.lowlevel.wait_readable(self._control.fileno())
        data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES_MAX, _FDS_MAX)
        if not data:
            self._give_up()
            raise StarterGoneError
        self._note(data, fds)

    def _note(self, data: bytes, fds: list[int]) -> None:
        match _answers.decode(data):
            case Forked(pid=pid, started_ticks=ticks):
                # Kept until the id is another's: who asks how it ended may do so after it was released.
                self._statuses.pop(pid, None)
                self._forked.append(ProcessHandle(pid, fds[0], ticks))
            case Ended(pid=pid, status=status):
                self._statuses[pid] = status

    def _give_up(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._kill()
        # It may just stand still, and have answered meanwhile. From now on it cannot, so what it has forked
        # and not told of does not begin; what it told of too late is ended.
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
            while (received := socket.recv_fds(self._control, _MESSAGE_BYTES_MAX, _FDS_MAX))[0]:
                self._note(*received[:2])
        for handle in self._forked:
            handle.kill()
            handle.close()
        self._forked.clear()
        _log.warning("starter_gone", pid=self.pid, hint="processes are started by a command, more slowly")

    def _kill(self) -> None:
        # A child that was not waited for: its id cannot be another's.
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the starter, even if it stands still; what it has forked goes on."""
        self._kill()
        self._control.close()
        os.close(self._own_pidfd)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


StartedProcess: TypeAlias = trio.Process | Process
"""A process that was started by a command or forked."""

_current: Starter | None = None


def is_starter(pid: int) -> bool:
    """Whether a process is a starter, by what it shows in the place of its arguments."""
    return tuple(command_line(pid)[:2]) == _TITLE


def current() -> Starter | None:
    """Return the starter of this process, if it has one."""
    return _current


@contextmanager
def open_starter(name: str, entries: dict[str, Entry]) -> Iterator[None]:
    """Fork a starter for the processes that the body starts, of these entries.

    Call it before there are threads, keys or event loops, with all imported that the entries import. It does
    nothing where there are threads already, or no pidfds.
    """
    global _current
    if threading.active_count() > 1 or not hasattr(os, "pidfd_open"):
        yield
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for output in (sys.stdout, sys.stderr):
        output.flush()
    # A collection writes to every object that it looks at, and what is written to is shared no more.
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(name, theirs, entries)
    theirs.close()
    former, _current = _current, Starter(ours, pid)
    try:
        yield
    finally:
        _current.close()
        _current = former


# --- in the starter --------------------------------------------------------------------------------------


def _serve(name: str, control: socket.socket, entries: dict[str, Entry]) -> NoReturn:
    """Fork what the supervisor asks for, until it is gone. Everything else stays as it was at the fork."""
    global _current
    _current = None
    status = _EXIT_FAILED
    try:
        _detach(name, control.fileno())
        _Forking(control, entries).run()
        status = 0
    finally:
        os._exit(status)


def _detach(name: str, control: int) -> None:
    """Leave signals to the supervisor, keep no file of its, and let nobody reach in."""
    keep_to_itself()
    leave_signals()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > _STDERR and fd != control:
            with suppress(OSError):  # that of the listing
                os.close(fd)
    retitle(" ".join((*_TITLE, name)))


class _Forking:
    """Forks and reaps. It has one thread, and waits for its socket and its children alone."""

    def __init__(self, control: socket.socket, entries: dict[str, Entry]) -> None:
        self._control = control
        self._entries = entries
        self._children: dict[int, int] = {}  # ids of processes by their pidfds
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve until the supervisor's end of the socket is closed, as it is when that dies."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES_MAX, _FDS_MAX)
        if not data:
            return False
        start = msgspec.msgpack.decode(data, type=Start)
        gate, childs_gate = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            gate.close()
            self._run_child(start, fds, childs_gate)
        childs_gate.close()
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        with gate:
            ticks = int.from_bytes(gate.recv(_TICKS_BYTES))
            # With the pidfd: the id alone may be another's by the time it is looked up.
            if self._say(Forked(pid, ticks), pidfd):
                with suppress(OSError):  # it was killed at once
                    gate.send(_GO)
        return True

    def _run_child(self, start: Start, fds: list[int], gate: socket.socket) -> NoReturn:
        status = _EXIT_FAILED
        try:
            self._control.close()
            for pidfd in self._children:
                os.close(pidfd)
            retitle(start.title)
            if not _let_through(gate):
                os._exit(EXIT_ORPHANED)
            self._entries[start.entry](start.arguments, fds)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else _EXIT_FAILED if error.code else 0
        except BaseException:  # noqa: BLE001  it must not go on as a second starter
            sys.excepthook(*sys.exc_info())
        finally:
            for output in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    output.flush()
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, waited = os.waitpid(pid, 0)
        self._say(Ended(pid, os.waitstatus_to_exitcode(waited)))

    def _say(self, answer: Forked | Ended, *fds: int) -> bool:
        """Tell the supervisor; False if it is gone, as the next look at the socket shows."""
        try:
            socket.send_fds(self._control, [msgspec.msgpack.encode(answer)], fds)
        except OSError:
            return False
        return True


def _let_through(gate: socket.socket) -> bool:
    """Whether a process that was just forked may begin: the supervisor has been told of it."""
    with gate, suppress(OSError):  # the starter is gone
        gate.send(own_start_ticks().to_bytes(_TICKS_BYTES))
        return gate.recv(1) == _GO
    return False


_answers: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder(Forked | Ended)
