"""Processes that the benchmark starts, what they use of the machine, and how they are stopped."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from greenroom_cluster.runtime.ports import reserved_port

_BLOCK = 512
_PAGE = os.sysconf("SC_PAGESIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10.0
_READY_SECONDS = 60.0
_libc = ctypes.CDLL(None)


class MissingError(Exception):
    """Something is not installed; the message says how to install it."""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One subprocess in a process group of its own, which does not outlive the benchmark.

    It may talk (lines on stdout), and obey (lines on stdin, whose end is its own).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        talks: bool = False,
        obeys: bool = False,
        cwd: Path | None = None,
        quiet: bool = True,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
        self._words = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115  `stop` closes it
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if obeys else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks or obeys else subprocess.DEVNULL,
            stderr=self._words,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self.command = command
        self.pid = self._popen.pid

    def ask(self, line: str) -> None:
        """Write a line to the process's stdin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def answer(self, seconds: float = _READY_SECONDS) -> str:
        """Return the next line of its stdout. Raises RuntimeError if it ends or takes longer."""
        assert self._popen.stdout is not None
        if not self.has_answer(seconds):
            raise RuntimeError(f"{self} said nothing for {seconds:g} s")
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self} ended unasked: {self.last_words()}")
        return line.decode()

    def has_answer(self, seconds: float) -> bool:
        """Whether its stdout has something to read; waits for that at most `seconds`."""
        assert self._popen.stdout is not None
        return bool(select.select([self._popen.stdout], [], [], seconds)[0])

    def __str__(self) -> str:
        return " ".join(self.command[:4])

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def last_words(self) -> str:
        """Return the last line that it has written to stderr, unless everybody sees that."""
        if self._words is None or self._words.closed:
            return "see above"
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def kill_tree(self) -> None:
        """SIGKILL the process and all below it. The kernel closes their sockets, which peers notice."""
        kill([self.pid, *descendants(self.pid)])
        self._popen.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it and all below it if it does not."""
        below = descendants(self.pid) if self.running else []
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError):
                self._popen.stdin.close()
        elif self.running:
            self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill([self.pid, *below])
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        if self._words is not None:
            self._words.close()


class Server(ABC):
    """The servers of one contender, started by `with` and stopped at its end."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.addresses: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    @abstractmethod
    def start(self) -> None:
        """Start everything. Raises MissingError if something is not installed."""

    @abstractmethod
    def processes(self) -> list[Process]:
        """Return the processes that run; what is below them counts as well."""

    def __enter__(self) -> Self:
        with self.stack:
            self.start()
            self.stack = self.stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def port(self) -> int:
        """Return a port of loopback that nobody else is given while this server runs."""
        return int(self.stack.enter_context(reserved_port()).getsockname()[1])

    def run(
        self,
        command: Sequence[str],
        *,
        talks: bool = False,
        obeys: bool = False,
        cwd: Path | None = None,
    ) -> Process:
        """Start a process that is stopped with the server."""
        process = Process(command, talks=talks, obeys=obeys, cwd=cwd)
        self.stack.callback(process.stop)
        return process

    def pids(self) -> list[int]:
        """Return the ids of all processes that serve."""
        return [
            pid
            for process in self.processes()
            if process.running
            for pid in (process.pid, *descendants(process.pid))
        ]

    def cpu_seconds(self) -> float:
        """Return the CPU time that they have used so far."""
        return sum(map(cpu_seconds, self.pids()))

    def resident_bytes(self) -> int:
        """Return the memory that they have in RAM."""
        return sum(map(resident_bytes, self.pids()))


def kill(pids: Iterable[int]) -> None:
    """SIGKILL the processes; those that have ended are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, 0 if it has ended; in nanoseconds where the kernel counts them."""
    with suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task")
        try:
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
        except FileNotFoundError:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def file_name(path: Path) -> str:
    """Return what the kernel calls a file where it lists locks; empty if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def locked_files() -> set[str]:
    """Return the files that some process has locked, as `file_name` does, without touching them."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {words[5] for words in lines if words[1] != "->"}


def occupied_bytes(directory: Path) -> int:
    """Return what the files below a directory occupy on disk, but for those that vanish."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * _BLOCK
    return total


def python_module(module: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module]


def json_line(value: object) -> str:
    """Return the value as one line of JSON."""
    return json.dumps(value, separators=(",", ":"))
