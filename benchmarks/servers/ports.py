"""Waiting for servers that say nothing when they are ready."""

import socket
import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.02


def until(
    condition: Callable[[], bool], what: str, seconds: float = 60.0, pause: float = _PAUSE_SECONDS
) -> None:
    """Wait until the condition holds. Raises RuntimeError, naming `what`, after `seconds`."""
    over = time.monotonic() + seconds
    while not condition():
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


def until_listening(host: str, port: int) -> None:
    """Wait until someone accepts connections there. Raises RuntimeError if nobody does in time."""
    until(lambda: listening(host, port), f"{host}:{port} accepts connections")
