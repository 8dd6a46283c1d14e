"""What a piece of work leaves to the collector of cycles, which stops the whole process while it looks."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from greenroom.web import RequestSession, Visit
from greenroom.web.ending import Ending


@contextmanager
def only_by_hand() -> Iterator[Callable[[], list[object]]]:
    """Stop the collector; give what returns those of ours that it would have had to find."""

    def found() -> list[object]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            return [each for each in gc.garbage if isinstance(each, Visit | RequestSession | Ending)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    gc.collect()
    gc.disable()
    try:
        yield found
    finally:
        gc.enable()
