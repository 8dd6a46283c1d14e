"""What every contender brings: the shop in its framework, and how to count and to forge."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from benchmarks.races.browser import App
from benchmarks.races.calls import Calls

USER = "ada"
COOKIE = "session"
IDLE_SECONDS = 1800


class Shop(NamedTuple):
    """One contender's shop, open.

    All shops answer `GET /health`, which does not look at the session; `GET /session` (user and data);
    `POST /set/{key}`, `/cart/{sku}` and `/count`, which change a key of their own, a key below "cart", and
    one number; `POST /save`, which changes and redirects to /session; `POST /login` and `/logout`, as the
    framework's documentation has them. All that read the session do so before they pass their gate.
    """

    app: App
    made_up: Callable[[], str]
    calls: Callable[[], Awaitable[Calls]]
    adds_up: bool = False
    """Whether there is also `POST /tally`: the number changed by what the framework has for that."""


Opening = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Shop]]


class Contender(NamedTuple):
    """One way to keep sessions."""

    title: str
    open: Opening
    packages: tuple[str, ...]
    stands_on: str = ""
    """Whether it needs an address: "redis" or "cluster"."""
