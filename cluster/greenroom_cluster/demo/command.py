"""`greenroom demo`: runs the scenario, shows its progress on stderr, and exits by its verdict."""

import importlib.util
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Self

import trio
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from greenroom.errors import GreenroomError
from greenroom_cluster import logs
from greenroom_cluster.config import Durability
from greenroom_cluster.demo.settings import BROWSERS, SECONDS, DemoSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.starting import open_starter_of_members
from greenroom_cluster.runtime.tasks import open_tasks

if TYPE_CHECKING:
    from greenroom_cluster.demo.verdict import DemoResult, Verdict

EXIT_FAILED = 2
EXIT_INTERRUPTED = 130
FIGURES_SECONDS = 0.25
_MODULES = {"httpx": "httpx", "multipart": "python-multipart", "starlette": "starlette", "uvicorn": "uvicorn"}


def run_demo(
    *,
    json: bool = False,
    seconds: float = SECONDS,
    browsers: int = BROWSERS,
    seed: int = 0,
    durability: Durability = "none",
    store: str = "",
    tls: bool = False,
) -> int:
    """Run the demo and return the exit status.

    0: nothing that was confirmed was lost. 1: something was lost, changed or came back. 2: the demo could not
    run, or measured too little. 130: interrupted. With `json` the last line on stdout is one JSON object and
    the table goes to stderr.
    """
    console = Console(stderr=True)
    missing = [package for module, package in _MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        console.print(
            f"The demo needs {', '.join(missing)}: install the wheel of greenroom-cluster with its extra "
            "`demo`.",
            style="red",
            markup=False,
        )
        return EXIT_FAILED
    settings = DemoSettings(
        seconds=seconds, browsers=browsers, seed=seed, durability=durability, store=store, tls=tls
    )
    # What the demo tells, its stage shows; stdout is for the result alone.
    logs.configure(LogSettings(level="error"))
    try:
        settings.check()
        with open_starter_of_members("demo"):
            result = trio.run(_shown, settings, console)
    except (GreenroomError, OSError) as error:
        console.print(f"The demo could not run: {error}", style="red", markup=False)
        return EXIT_FAILED
    if result is None:
        console.print("Interrupted; everything that was started has been stopped.", style="yellow")
        return EXIT_INTERRUPTED

    from greenroom_cluster.demo.report import print_result, result_json

    print_result(console if json else Console(), result)
    if json:
        sys.stdout.write(result_json(result) + "\n")
        sys.stdout.flush()
    return result.exit_code


async def _shown(settings: DemoSettings, console: Console) -> "DemoResult | None":
    """Play the scenario with its progress shown; None if a signal ended it."""
    from greenroom_cluster.demo.scenario import play

    result: DemoResult | None = None
    # Cancelling, rather than KeyboardInterrupt anywhere, so that everything is stopped in order.
    with (
        _ProgressStage(console) as stage,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
    ):
        async with open_tasks() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope.cancel)
            nursery.start_soon(stage.refresh)
            result = await play(settings, stage)
            nursery.cancel_scope.cancel()
    return result


async def _cancel_on_signal(signals: AsyncIterator[int], cancel: Callable[[], None]) -> None:
    async for _ in signals:
        cancel()
        return


class _ProgressStage:
    """Shows the step under way with its time, and above it a line for everything that has happened."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", figures="", total=None)
        self._verdict: Verdict | None = None
        self._begun = trio.current_time()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def step(self, what: str) -> None:
        """Show what is being done now. Without a terminal it is a line like any other."""
        self._progress.update(self._task, description=what)
        if not self._console.is_terminal:
            self._line(f"... {what}")

    def done(self, what: str) -> None:
        """Show what has happened."""
        self._line(what)

    def _line(self, text: str) -> None:
        elapsed = trio.current_time() - self._begun
        self._console.print(f"{elapsed:5.1f} s  {text}", markup=False, highlight=False, soft_wrap=True)

    def watch(self, verdict: "Verdict") -> None:
        """Show the running figures from now on."""
        self._verdict = verdict

    async def refresh(self) -> None:
        """Keep the figures up to date until cancelled."""
        while True:
            await trio.sleep(FIGURES_SECONDS)
            if self._verdict is not None:
                shown = self._verdict
                figures = f"{shown.requests:,} requests, {shown.user_errors:,} errors"
                self._progress.update(self._task, figures=figures)
