"""Servers as processes of their own, and the CPU time that they take."""

import asyncio
import os
import signal
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A server process that prints one line when it is ready; stopped when the context ends.

    `pids` are the processes whose CPU time counts as the server's.
    """

    process: asyncio.subprocess.Process
    pids: list[int]

    async def spawn(self, *command: str) -> str:
        """Start the command and return the first line that it prints; raises RuntimeError without one."""
        self.process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        if not line:
            raise RuntimeError(f"{' '.join(command)} ended before it was ready")
        return line.decode()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server's processes have used so far."""
        return sum(_cpu_seconds(pid) for pid in self.pids)


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123  not a file on disk
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
