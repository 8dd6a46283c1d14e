"""What this process reads anew when it is asked to: its certificate and key, its CAs, its deny list, tokens.

The files are looked at by themselves too. On SIGHUP a supervisor reads its own, and asks its children.
"""

import os
import signal
import weakref
from typing import Any

from greenroom.rereading import Reread

_in_use: "weakref.WeakSet[Reread[Any]]" = weakref.WeakSet()


def note(files: Reread[Any]) -> None:
    """Have these read anew from now on."""
    _in_use.add(files)


def reload_all() -> None:
    """Read all files anew, changed or not. The log tells what came of it."""
    for files in list(_in_use):
        files.reload()


class Terminal:
    """The terminal from which this process was started, if there is one.

    Its end brings a SIGHUP too, which must end the process as ever, unless `nohup` has it ignored.
    """

    def __init__(self) -> None:
        self._matters = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN

    def is_gone(self) -> bool:
        """Whether the terminal has ended, so that a SIGHUP means that this process should."""
        return self._matters and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
