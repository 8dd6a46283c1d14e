"""The bound on memory held by all clients' connections together: incomplete frames and unread replies.

Each connection has its own bounds, but many together could fill an actor with frames that they never finish
or replies that they never read. All writes would then be refused, as if sessions had filled the actor.
"""

from typing import Protocol

import structlog

from greenroom_cluster.runtime.log_limits import LimitedLog

BUFFER_BYTES_MAX = 16 << 20
BUFFER_BYTES_MIN = 4 << 20
FRAME_SECONDS = 10
"""How long a frame may stay incomplete."""
SWEEP_SECONDS = 1

_MEMORY_SHARE = 16
_FREE_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)


def buffer_bytes(memory_bytes_max: int) -> int:
    """Return the bytes of an actor's memory that its clients' connections may hold."""
    return max(BUFFER_BYTES_MIN, memory_bytes_max // _MEMORY_SHARE)


class Holder(Protocol):
    """A connection for the budget: `source` is the account to charge, `remote` its name in logs."""

    source: str
    remote: str

    @property
    def crowded(self) -> bool:
        """Whether reading from it is paused until the other side has taken the queued bytes."""

    def abort(self, reason: str) -> None:
        """End it and free what it holds."""


class BufferBudget:
    """Bounds what connections hold together, and for how long one may leave a frame incomplete.

    Beyond `bytes_max` the source that holds most loses its largest connection. Connections below 64 KiB do
    not count. The age of a frame is counted in sweeps, not read from a clock, because clients are not to
    blame while this process stands still and reads nothing.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: dict[Holder, int] = {}
        self._sweeps: dict[Holder, int] = {}
        self.held_bytes = 0

    def hold(self, holder: Holder, held_bytes: int) -> None:
        """Note how much a connection holds now; this may end it, or another one."""
        before = self._held.get(holder, 0)
        if held_bytes >= _FREE_BYTES:
            self._held[holder] = held_bytes
        elif before:
            del self._held[holder]
            held_bytes = 0
        else:
            return
        self.held_bytes += held_bytes - before
        while self.held_bytes > self._bytes_max:
            self._end_largest()

    def begin_frame(self, holder: Holder) -> None:
        """Note the beginning of a frame that is incomplete."""
        self._sweeps[holder] = 0

    def end_frame(self, holder: Holder) -> None:
        """Note that no frame is incomplete."""
        self._sweeps.pop(holder, None)

    def drop(self, holder: Holder) -> None:
        """Forget a connection that has ended."""
        self.held_bytes -= self._held.pop(holder, 0)
        self._sweeps.pop(holder, None)

    def sweep(self) -> None:
        """End connections whose frame has been incomplete for too long; call this every SWEEP_SECONDS."""
        for holder, sweeps in list(self._sweeps.items()):
            if holder.crowded:
                self._sweeps[holder] = 0
            elif sweeps < FRAME_SECONDS // SWEEP_SECONDS:
                self._sweeps[holder] = sweeps + 1
            else:
                _limited_log.warning("frame_unfinished", remote=holder.remote, seconds=FRAME_SECONDS)
                self.drop(holder)
                holder.abort(f"a frame was incomplete for {FRAME_SECONDS} s")

    def _end_largest(self) -> None:
        of_source: dict[str, int] = {}
        for holder, held_bytes in self._held.items():
            of_source[holder.source] = of_source.get(holder.source, 0) + held_bytes
        source = max(of_source, key=of_source.__getitem__)
        largest = max(
            (holder for holder in self._held if holder.source == source), key=self._held.__getitem__
        )
        _limited_log.warning(
            "connection_over_budget",
            remote=largest.remote,
            held_bytes=self._held[largest],
            buffer_bytes_max=self._bytes_max,
        )
        self.drop(largest)
        largest.abort("clients hold too much in frames not finished and answers not read, this one most")
