"""The command `greenroom`."""

import os
import signal
import threading
from typing import NoReturn

__all__ = ["main"]


def _leave(number: int, _frame: object) -> NoReturn:
    # By the convention of shells. Nothing has been started yet that would have to be stopped.
    os._exit(128 + number)


def main() -> None:
    """Run the command line. A signal that comes before the command waits for signals ends it quietly."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
    from greenroom_cluster.cli.commands import main as run

    run()
