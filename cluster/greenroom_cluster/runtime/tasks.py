"""Nurseries that raise one error as itself, under every version of trio.

From trio 0.25 on a nursery wraps each error in an exception group, before only where there are several. Our
callers catch errors by type, and an operator is shown one message: so a group that holds a single error is
opened here, however deep it lies.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """Open a nursery with strict exception groups; raise the error of a group that has only one."""
    with ungrouped():
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            yield nursery


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the error of a group that has only one in place of the group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = only_error(group)
        if error is None:
            raise
        # Its own context is what it had where it was raised; the group adds nothing to that.
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context


def only_error(error: BaseException) -> BaseException | None:
    """Return the one error in a group of groups, or None if there are more."""
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        (error,) = error.exceptions
    return error
