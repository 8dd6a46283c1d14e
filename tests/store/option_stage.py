"""Sessions and middlewares that are only made, to see which options they refuse."""

from typing import Any

from greenroom import MemoryStore
from greenroom.web import Session

SECRET = "a secret for tests only, long enough"
HIDDEN = "hunter2-hunter2-hunter2"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing."""


def new_session(**options: Any) -> Session:
    return Session(**{"secret": SECRET, "store": MemoryStore(), **options})


class Hidden:
    """Something that an error may not show."""

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN
