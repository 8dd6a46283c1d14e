"""Where frames are shown: on a terminal each replaces the one before, elsewhere they follow each other."""

import io
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import trio
from rich.console import Console

from greenroom_cluster.cli.layout import WIDTH
from greenroom_cluster.cli.terminals import moves_cursor

_OPEN = "\x1b[?1049h\x1b[?25l"  # a screen of our own, without a cursor
_CLOSE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_REST = "\x1b[J"
_KEY_BYTES = 64


class Screen:
    """Shows frames on a stream, if that is a terminal that can move its cursor; else one after the other."""

    def __init__(self, out: TextIO, *, live: bool) -> None:
        self._out = out
        self.live = live

    @classmethod
    def of_stdout(cls) -> "Screen":
        """Return that of this process."""
        return cls(sys.stdout, live=moves_cursor(sys.stdout))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have the terminal to ourselves around the body, and leave it as it was."""
        if not self.live:
            yield
            return
        self._write(_OPEN)
        try:
            yield
        finally:
            self._write(_CLOSE)

    def show(self, draw: Callable[[Console], None]) -> None:
        """Show what is drawn as the next frame. Raises BrokenPipeError if nobody reads any more."""
        if not self.live:
            self._write(_drawn(draw, WIDTH, terminal=False) + "\n")
            return
        width, height = os.get_terminal_size(self._out.fileno())
        lines = _drawn(draw, width, terminal=True).splitlines()[: height - 1]
        self._write(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _REST)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _drawn(draw: Callable[[Console], None], width: int, *, terminal: bool) -> str:
    kept = io.StringIO()
    draw(
        Console(
            file=kept,
            width=max(width, 1),
            force_terminal=terminal,
            # The colors that any terminal has. NO_COLOR is heeded by the console itself.
            color_system="standard" if terminal else None,
            highlight=False,
        )
    )
    return kept.getvalue()


async def until_key(key: str) -> None:
    """Return once somebody has pressed this key. Without a terminal at standard input, never."""
    if sys.stdin is None or not sys.stdin.isatty():
        await trio.sleep_forever()
    file = sys.stdin.fileno()
    former = termios.tcgetattr(file)
    tty.setcbreak(file)
    try:
        while True:
            await trio.lowlevel.wait_readable(file)
            keys = os.read(file, _KEY_BYTES).decode(errors="replace")
            if key in keys or not keys:
                return
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, former)
