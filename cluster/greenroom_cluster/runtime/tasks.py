"""Nurseries that raise a single error as itself, under every version of trio.

From trio 0.25 on a nursery wraps each error in an exception group; before, only several errors were wrapped.
Our callers catch errors by type, and show operators one message. So a group with a single error, however
deep, is unwrapped here.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from greenroom.errors import GreenroomError


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """Open a nursery with strict exception groups; raise the error of a group that has only one."""
    with ungrouped():
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            yield nursery


@contextmanager
def one_for_all() -> Iterator[None]:
    """Raise the first error in place of a group whose errors are all meant for the user.

    Tasks that do the same thing fail for the same reason, and one line says it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if not all(isinstance(each, GreenroomError) for each in group.exceptions):
            raise
        error = group.exceptions[0]
    else:
        return
    raise error


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
