"""What is told of a run while it goes on, and kept of it: how it was measured, what was left out."""

import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from benchmarks import machine
from benchmarks.clients import ContenderError
from benchmarks.processes import MissingError
from benchmarks.results import BUSY, Run

Result = TypeVar("Result")


class RunLog:
    """See the module. `skipped` and `versions` are of the run that began last."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.begin()

    def begin(self, load: float | None = None) -> None:
        """Begin a run; `load` is the machine's before anything ran, without it that of now."""
        self.skipped: dict[str, str] = {}
        self.versions = machine.versions()
        self._load = machine.load_average() if load is None else load
        self._when = time.strftime("%Y-%m-%d", time.gmtime())
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Report progress."""
        self._console.print(text, highlight=False)

    def warn_if_busy(self) -> None:
        """Tell whoever watches that processes of others will take part in the figures."""
        load = machine.load_average()
        if load > BUSY:
            self.say(f"the machine is busy (load {load:.1f}): wait until it is quiet for figures that count")

    def skip(self, name: str, reason: object) -> None:
        """Leave something out, visibly."""
        self.skipped[name] = str(reason) or type(reason).__name__
        self._console.print(f"[yellow]skipped: {name}[/yellow]: {reason}", highlight=False)

    def attempt(self, name: str, action: Callable[[], Result]) -> Result | None:
        """Return what the action returns; None, and `name` is skipped, if something is missing."""
        try:
            return action()
        except (MissingError, ContenderError) as error:
            self.skip(name, error)
            return None

    def ended(self, *, kind: str, rounds: int, seconds: float) -> Run:
        """Return what is kept of the run."""
        return Run(
            when=self._when,
            kind=kind,
            rounds=rounds,
            seconds=seconds,
            took_seconds=time.monotonic() - self._began,
            load=self._load,
            commit=machine.commit(),
            machine=machine.machine(),
            versions=self.versions,
            skipped=self.skipped,
        )
