"""Progress of a command on stderr: on a terminal one line that changes, elsewhere a line a second."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from greenroom_cluster.cli.terminals import moves_cursor

if TYPE_CHECKING:
    from greenroom_cluster.backups.restoring import Restored
    from greenroom_cluster.backups.taking import Copied

_LINE_SECONDS = 1.0
_FRAME_SECONDS = 0.1
_CLEAR = "\r\x1b[K"


class Progress:
    """Tells how far a command has come. Where nobody is to be told, `out` is None."""

    def __init__(self, out: TextIO | None, *, terminal: bool) -> None:
        self._out = out
        self._terminal = terminal
        self._began = time.monotonic()
        self._told = -math.inf if terminal else self._began
        self._shown = False

    @classmethod
    @contextmanager
    def on_stderr(cls, *, json: bool) -> Iterator["Progress"]:
        """Tell it on stderr during the body; with `json` that carries logs only."""
        out = None if json else sys.stderr
        progress = cls(out, terminal=out is not None and moves_cursor(out))
        try:
            yield progress
        finally:
            progress.clear()

    def copied(self, done: "Copied") -> None:
        """Take how much of a cluster was copied."""
        seconds = time.monotonic() - self._began
        mebibytes = done.size_bytes / (1 << 20)
        speed = f", {mebibytes / seconds:.1f} MiB/s" if seconds > 0 else ""
        self._tell(
            f"{done.shards} of {done.of} shards copied, {done.sessions} sessions, {mebibytes:.1f} MiB{speed}"
        )

    def restored(self, done: "Restored") -> None:
        """Take how many sessions were brought back."""
        seconds = time.monotonic() - self._began
        speed = f", {done.looked_at / seconds:.0f}/s" if seconds > 0 else ""
        self._tell(f"{done.looked_at} sessions looked at, {done.created} created{speed}")

    def clear(self) -> None:
        """Take the changing line away."""
        if self._out is not None and self._shown and self._terminal:
            self._out.write(_CLEAR)
            self._out.flush()

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if self._out is None or now - self._told < (_FRAME_SECONDS if self._terminal else _LINE_SECONDS):
            return
        self._told = now
        self._shown = True
        self._out.write(f"{_CLEAR}{text}" if self._terminal else f"greenroom: {text}\n")
        self._out.flush()
