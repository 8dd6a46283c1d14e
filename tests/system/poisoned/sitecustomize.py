"""Poison for a test's own cluster: Python imports this first wherever this directory is in PYTHONPATH.

A session with one of these labels ends, in its own way, whoever applies what creates it.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.table import SessionTable


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> NoReturn:
    while True:
        pass


def fail() -> NoReturn:
    raise RuntimeError("an impossible state")


def fill_memory() -> None:
    """Work for as long as it may take to run out of memory, and be killed for that.

    The supervisor looks every tenth of a second, must see a tenth spent between two looks, and the kernel
    counts in hundredths: so three looks see it for sure, and two not always.
    """
    began = time.process_time()
    while time.process_time() - began < 0.35:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


POISONS: dict[str, Callable[[], None]] = {
    "poison: crash": crash,
    "poison: hang": hang,
    "poison: fail": fail,
    "poison: fill memory": fill_memory,
}

_apply = SessionTable.apply


def _poisoned(self: SessionTable, record: Record, by_keys: Any = None) -> Any:
    poison = POISONS.get(getattr(record.command, "label", ""))
    if poison is not None:
        poison()
    return _apply(self, record, by_keys)


SessionTable.apply = _poisoned  # type: ignore[method-assign]
