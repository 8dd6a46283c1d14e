"""Options that were removed, and what to do instead."""

import os
import sys
from collections.abc import Sequence

from greenroom.errors import UsageError

REMOVED = {
    "--linger-seconds": "actors choose how long they stay awake for the next request; leave it out",
    "--restart-window": "the window is always 30 s; leave it out, or change --restarts-max",
}


def refuse_removed(arguments: Sequence[str]) -> None:
    """Raise UsageError, saying what to do, if one of these arguments is an option that was removed."""
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in REMOVED:
            raise UsageError(f"there is no option {option} any longer: {REMOVED[option]}")


def warn_of_removed_variables() -> None:
    """Print a line for each variable that has no effect, because its option was removed."""
    for option, advice in REMOVED.items():
        variable = f"GREENROOM_{option.removeprefix('--').replace('-', '_').upper()}"
        if variable in os.environ:
            sys.stderr.write(f"greenroom: {variable} has no effect: {advice}\n")
