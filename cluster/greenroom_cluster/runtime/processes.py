"""The kernel's view of processes: identity, life and death.

A process id alone proves nothing, because ids are reused. (boot, pid namespace, pid, start ticks) names one
process and never another. A pidfd refers to exactly one process: it becomes readable within milliseconds of
that process's death, and a signal sent through it never hits a successor.
"""

import ctypes
import faulthandler
import os
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path

import trio

PROC = Path("/proc")
EXIT_ORPHANED = 75
# Hint in the log line about an unexpected end.
RESTART_HINT = "it is started again, unless it ends too often"
_START_TICKS_FIELD = 22
_ARGUMENTS_FIELDS = (48, 49)
_SET_NAME = 15
_FIELDS_BEFORE_STATE = 3
_PARENT_FIELD = 4
_BUSY_FIELDS = (14, 15)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def host_identity() -> str:
    """Return the scope of (pid, start ticks): this boot of this kernel, and the pid namespace.

    It differs between two containers of one host, and changes when the host restarts.
    """
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    namespace = (PROC / "self/ns/pid").stat().st_ino
    return f"{boot}/{namespace}"


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third one on, or None if there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, and may itself contain spaces and parentheses.
    return text[text.rindex(")") + 2 :].split()


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None if there is no such process."""
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[_START_TICKS_FIELD - _FIELDS_BEFORE_STATE])


def own_start_ticks() -> int:
    """Return when this process started, which it sees wherever /proc is mounted."""
    return start_ticks(os.getpid()) or 0


def retitle(title: str) -> None:
    """Have tools such as ps show this in the place of the arguments, as far as those reached."""
    fields = _stat_fields(os.getpid())
    if fields is None:
        return
    begin, end = (int(fields[field - _FIELDS_BEFORE_STATE]) for field in _ARGUMENTS_FIELDS)
    shown = title.encode().replace(b" ", b"\0")[: end - begin - 1]
    # The kernel shows all up to the last byte, which has to be zero.
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
    ctypes.CDLL(None).prctl(_SET_NAME, title.rpartition(" ")[2].encode()[:15], 0, 0, 0)


def busy_seconds(pid: int, started_ticks: int) -> float | None:
    """Return the processor time that a process with that id and start has used; None if it is gone."""
    fields = _stat_fields(pid)
    if fields is None or int(fields[_START_TICKS_FIELD - _FIELDS_BEFORE_STATE]) != started_ticks:
        return None
    return sum(int(fields[field - _FIELDS_BEFORE_STATE]) for field in _BUSY_FIELDS) / _TICKS_PER_SECOND


def is_alive(pid: int, started_ticks: int) -> bool:
    """Whether the process with that id and start is alive. A zombie is not, because it executes nothing."""
    fields = _stat_fields(pid)
    if fields is None or int(fields[_START_TICKS_FIELD - _FIELDS_BEFORE_STATE]) != started_ticks:
        return False
    return fields[0] not in {"Z", "X"}


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has installed a handler for that signal; False if it is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def children_of(pid: int) -> list[int]:
    """Return the ids of the processes whose parent is `pid`, zombies included."""
    children = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        fields = _stat_fields(int(entry.name))
        if fields is not None and int(fields[_PARENT_FIELD - _FIELDS_BEFORE_STATE]) == pid:
            children.append(int(entry.name))
    return sorted(children)


def descendants_of(pid: int) -> list[int]:
    """Return the ids of all processes below `pid`, parents before their children."""
    found = []
    waiting = [pid]
    while waiting:
        children = children_of(waiting.pop())
        found += children
        waiting += children
    return found


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process; empty if it is gone or a zombie."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


class ProcessHandle:
    """A reference to one process through a pidfd. `pid` and `started_ticks` name it for others.

    Whoever knows a pidfd and when the process started hands both over, and the pidfd belongs to the handle
    then. Without them, raises ProcessLookupError if there is no such process. Close it when done.
    """

    __slots__ = ("_fd", "pid", "started_ticks")

    def __init__(self, pid: int, pidfd: int | None = None, started_ticks: int | None = None) -> None:
        self._fd = os.pidfd_open(pid) if pidfd is None else pidfd
        self.pid = pid
        # Read after opening the pidfd: if the id was reused just before, pidfd and ticks both belong to the
        # successor.
        self.started_ticks = (start_ticks(pid) or 0) if started_ticks is None else started_ticks

    def copy(self) -> "ProcessHandle":
        """Return another reference to the same process."""
        return ProcessHandle(self.pid, os.dup(self._fd), self.started_ticks)

    def close(self) -> None:
        """Release the pidfd; the process lives on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def wait_exited(self) -> None:
        """Return as soon as the process is dead, within milliseconds."""
        await trio.lowlevel.wait_readable(self._fd)

    def exited(self) -> bool:
        """Whether the process is dead."""
        return self._fd < 0 or bool(select.select([self._fd], [], [], 0)[0])

    def exit_status(self) -> int | None:
        """Return how a dead child of this process ended, negative for a signal, without reaping it."""
        try:
            result = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; do nothing if the process is dead already."""
        if self._fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> None:
        """SIGKILL, which ends stopped processes too."""
        self.signal(signal.SIGKILL)


def parent_pidfd(parent_pid: int) -> int:
    """Return a pidfd of this process's parent; exit with EXIT_ORPHANED if that is another by now."""
    try:
        fd = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        os._exit(EXIT_ORPHANED)
    # Checked once the pidfd is held: only then does the parent's id prove that it is the parent's pidfd.
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHANED)
    return fd


def exit_with(pidfd: int) -> None:
    """Make this process exit at once, with status EXIT_ORPHANED, when the one behind the pidfd dies.

    A thread waits on it, so that a busy or hung event loop does not matter. PR_SET_PDEATHSIG would not do: it
    fires at the death of the *thread* that spawned, and trio spawns from a worker thread; and what a starter
    has forked would end with that.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while not poll.poll():
            pass
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


def exit_with_parent(parent_pid: int) -> None:
    """Make this process exit at once when its parent dies, see `exit_with`."""
    exit_with(parent_pidfd(parent_pid))


def serve_supervisor(pidfd: int) -> None:
    """Let this process end with its supervisor, and ignore signals to their process group."""
    exit_with(pidfd)
    leave_signals()
    faulthandler.enable()


_OF_GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_signals() -> None:
    """Ignore the signals that reach a whole process group: a supervisor acts on them."""
    for number in _OF_GROUP:
        signal.signal(number, signal.SIG_IGN)


def heed_signals() -> None:
    """Have these signals do again what they do to a process that was just started."""
    for number in _OF_GROUP:
        signal.signal(number, signal.SIG_DFL)
