"""What sessions cost per request: the same Starlette app behind each middleware, taking turns in one run."""

import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from statistics import median

import msgspec

from benchmarks.races.browser import Answer, Browser
from benchmarks.races.scenes import raise_unless_well
from benchmarks.races.shops import Contender

BASE = "no sessions"
KINDS: dict[str, tuple[str, str]] = {
    "a page that does not look at the session": ("GET", "/health"),
    "a page that reads it": ("GET", "/session"),
    "a page that changes it": ("POST", "/count"),
}
ROUNDS = 15
REQUESTS = 60
_ITEMS = 10


class Turn(msgspec.Struct, frozen=True):
    """What one request took on average in one turn, in seconds: of the clock, and of this process's CPU."""

    seconds: float
    cpu_seconds: float


Turns = dict[str, dict[str, list[Turn]]]
"""By kind of page, then by title, one a round."""


class Cost(msgspec.Struct, frozen=True):
    """Medians over all rounds, in microseconds a request."""

    title: str
    wall_us: float
    cpu_us: float
    more_wall_us: float
    more_cpu_us: float


def costs_of(turns: Mapping[str, list[Turn]]) -> list[Cost]:
    """Return the cost of each, and how much more that is than without sessions, compared round by round."""
    base = turns[BASE]
    return [
        Cost(
            title,
            _micros([turn.seconds for turn in own]),
            _micros([turn.cpu_seconds for turn in own]),
            _micros([turn.seconds - low.seconds for turn, low in zip(own, base, strict=True)]),
            _micros([turn.cpu_seconds - low.cpu_seconds for turn, low in zip(own, base, strict=True)]),
        )
        for title, own in turns.items()
    ]


def _micros(seconds: list[float]) -> float:
    return round(median(seconds) * 1e6, 1)


async def measure(contenders: Iterable[Contender], addresses: Mapping[str, str]) -> Turns:
    """Let all take turns, and return what each turn took. What has no address is left out."""
    async with AsyncExitStack() as stack:
        browsers: dict[str, Browser] = {}
        for contender in contenders:
            if not contender.stands_on or contender.stands_on in addresses:
                shop = await stack.enter_async_context(contender.open(addresses))
                browsers[contender.title] = await _customer(Browser(shop.app))
        turns: Turns = {kind: {title: [] for title in browsers} for kind in KINDS}
        for number in range(ROUNDS + 1):
            for kind, (method, path) in KINDS.items():
                for title, browser in browsers.items():
                    turn = await _turn(browser, method, path)
                    if number:  # the first warms up
                        turns[kind][title].append(turn)
        return turns


async def _customer(browser: Browser) -> Browser:
    answers = [await browser.ask("POST", "/login")]
    answers += [await browser.ask("POST", f"/cart/sku-{number}") for number in range(_ITEMS)]
    raise_unless_well(answers)
    return browser


async def _turn(browser: Browser, method: str, path: str) -> Turn:
    answers: list[Answer] = []
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(REQUESTS):
        answers.append(await browser.ask(method, path))  # noqa: PERF401  one after the other, timed
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    raise_unless_well(answers)
    return Turn(seconds / REQUESTS, cpu_seconds / REQUESTS)
