"""Nurseries that raise a single error as itself, under every version of trio.

From trio 0.25 on a nursery wraps each error in an exception group; before, only several errors were wrapped.
Our callers catch errors by type, and show operators one message. So a group with a single error, however
deep, is unwrapped here.
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
        # Keep the context in which it was raised; the group adds nothing.
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
