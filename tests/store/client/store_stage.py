"""What tests of `ClusterStore` share: the libraries it runs under, and how a test runs in one of them."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from greenroom.ids import new_session_id
from greenroom.sessions import SessionData
from greenroom.testing import available_libraries, library_named

LIBRARIES = available_libraries()
SECONDS = 30.0


def session(point: int | None = None, **fields: Any) -> SessionData:
    return SessionData(
        session_id=new_session_id(point), expires=datetime.now(UTC) + timedelta(hours=1), **fields
    )


def run(library: str, action: Callable[[], Awaitable[Any]]) -> Any:
    return library_named(library).run(action, SECONDS)


async def until(library: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await library_named(library).sleep(0.005)
