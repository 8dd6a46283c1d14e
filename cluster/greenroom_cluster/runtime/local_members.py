"""The subprocesses of a local cluster: each gets its settings as one document on its standard input.

Each has its own process group, so that Ctrl-C in a terminal reaches only who has started it.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import structlog
import trio

from greenroom_cluster.config import CoordinatorProcessSettings, NodeSettings
from greenroom_cluster.runtime.documents import Membership, encode_settings
from greenroom_cluster.runtime.processes import RESTART_HINT, ProcessHandle, catches
from greenroom_cluster.runtime.starter import MEMBER, Process, StartedProcess, StarterGoneError, current

_MEMBER_MODULE = "greenroom_cluster.runtime.member"

_log = structlog.get_logger("greenroom.local")


class Member:
    """One subprocess that is kept running while `wanted`."""

    def __init__(self, name: str, settings: CoordinatorProcessSettings | NodeSettings) -> None:
        self.name = name
        self.settings = settings
        self.wanted = True
        self.process: StartedProcess | None = None
        self.handle: ProcessHandle | None = None
        self.spawned = trio.Event()
        self.gone = trio.Event()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.handle is not None and not self.handle.exited()

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal, if it was started."""
        if self.handle is not None:
            self.handle.signal(number)

    def stop(self) -> None:
        """Ask it to stop; kill it if it does not handle signals yet, and so has nothing to clean up."""
        if self.handle is not None:
            asked = catches(self.handle.pid, signal.SIGTERM)
            self.handle.signal(signal.SIGINT if asked else signal.SIGKILL)

    async def run(self, started: Callable[[], None]) -> None:
        """Start it once, and wait for its end; `started` is called in between."""
        membership = Membership(os.getpid(), self.settings)
        with trio.CancelScope(shield=True), _document(membership) as document:
            process = self.process = await self._spawned(document)
        self.handle = process.handle.copy() if isinstance(process, Process) else ProcessHandle(process.pid)
        started()
        self.spawned.set()
        # Shielded: even on cancellation `stop` first asks, and then kills what does not end.
        with trio.CancelScope(shield=True):
            await self.handle.wait_exited()
            await process.wait()
        self.handle.close()
        if isinstance(process, Process):
            process.release()

    async def _spawned(self, document: int) -> StartedProcess:
        starter = current()
        if starter is not None:
            with suppress(StarterGoneError):
                return await starter.start(MEMBER, f"{_MEMBER_MODULE} {self.name}", [self.name], [document])
        command = [sys.executable, "-m", _MEMBER_MODULE, self.name]
        return await partial(trio.lowlevel.open_process, command, stdin=document, process_group=0)()

    def tell_end(self, *, asked: bool, kept: bool) -> None:
        """Log how it has ended."""
        assert self.process is not None
        status = self.process.returncode
        fields = {"process": self.name, "pid": self.process.pid, "exit_status": status}
        if kept:
            _log.warning("process_ended", **fields, hint=RESTART_HINT)
        elif asked or status == 0:
            _log.info("process_ended", **fields)
        else:
            _log.warning("process_ended", **fields, hint="it is not started again")


@contextmanager
def _document(membership: Membership) -> Iterator[int]:
    """Open a file in memory, without a name, from which a member reads its settings."""
    with os.fdopen(os.memfd_create("greenroom-settings"), "wb") as file:
        file.write(encode_settings(membership))
        file.seek(0)
        yield file.fileno()
