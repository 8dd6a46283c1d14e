"""Waiting for servers that say nothing when they are ready."""

import socket
import time
from collections.abc import Callable, Iterable

from benchmarks.processes import Process

_PAUSE_SECONDS = 0.02


def until(
    condition: Callable[[], bool],
    what: str,
    seconds: float = 60.0,
    pause: float = _PAUSE_SECONDS,
    processes: Iterable[Process] = (),
) -> None:
    """Wait until the condition holds.

    Raises RuntimeError, naming `what`, after `seconds`, and with its last words once one of the `processes`
    has ended.
    """
    over = time.monotonic() + seconds
    while not condition():
        for process in processes:
            if not process.running:
                raise RuntimeError(f"{process} ended before {what}: {process.last_words()}")
        if time.monotonic() > over:
            raise RuntimeError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(pause)


def listening(host: str, port: int) -> bool:
    """Whether someone accepts connections there."""
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def until_listening(host: str, port: int, *processes: Process) -> None:
    """Wait until someone accepts connections there. Raises RuntimeError as `until` does."""
    until(lambda: listening(host, port), f"{host}:{port} accepts connections", processes=processes)
