"""The races, played against one shop. Gates decide who comes first, so every run has the same order."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.races.browser import Answer, Browser, Gate
from benchmarks.races.calls import Calls
from benchmarks.races.findings import (
    FORGERIES,
    KINDS,
    TOGETHER,
    Afterwards,
    Findings,
    Kept,
    SlowKind,
    Traffic,
)
from benchmarks.races.shops import COOKIE, Shop

_OK = 200
_SAME_AGAIN = 2
"""How many of a hundred requests set what is set already."""
_SLOW: dict[SlowKind, tuple[str, str]] = {"writes": ("POST", "/set/slow"), "reads": ("GET", "/session")}


async def findings_of(title: str, shop: Shop, *, has_store: bool) -> Findings:
    """Play everything and return what was seen."""
    return Findings(
        title=title,
        has_store=has_store,
        own_keys=await _together(shop, lambda n: f"/set/key-{n}", _own_keys),
        nested_keys=await _together(shop, lambda n: f"/cart/sku-{n}", _nested_keys),
        counted=await _together(shop, lambda _: "/count", _count),
        tallied=await _together(shop, lambda _: "/tally", _count) if shop.adds_up else None,
        logout=await _logout(shop, None),
        login=await _login(shop, None),
        logout_races={kind: await _logout(shop, kind) for kind in KINDS},
        login_races={kind: await _login(shop, kind) for kind in KINDS},
        made_up_adopted=await _adopted(lambda: _made_up(shop)),
        ended_adopted=await _adopted(lambda: _ended(shop)),
        redirect_saw_it=await _redirect(shop),
        traffic=await _hundred(shop),
    )


# --- many at once ----------------------------------------------------------------------------------------


async def _together(
    shop: Shop, path_of: Callable[[int], str], stored: Callable[[Browser], Awaitable[int]]
) -> Kept:
    """Send requests of one browser that all read before any of them writes, and look what is stored."""
    browser = await _visitor(shop)
    gate = Gate(TOGETHER)
    slow = [asyncio.create_task(browser.ask("POST", path_of(n), gate=gate)) for n in range(TOGETHER)]
    await gate.until_all_wait()
    gate.open()
    answers = await asyncio.gather(*slow)
    return Kept(sum(answer.status < _OK + 100 for answer in answers), await stored(browser))


async def _own_keys(browser: Browser) -> int:
    return sum(key.startswith("key-") for key in (await browser.see())["data"])


async def _nested_keys(browser: Browser) -> int:
    return sum(key.startswith("sku-") for key in (await browser.see())["data"].get("cart", {}))


async def _count(browser: Browser) -> int:
    return int((await browser.see())["data"].get("count", 0))


# --- slow requests ---------------------------------------------------------------------------------------


async def _logout(shop: Shop, slow: SlowKind | None) -> Afterwards:
    browser = await _visitor(shop)
    await _done(browser.ask("POST", "/login"))
    return await _overtaken(browser, "/logout", slow)


async def _login(shop: Shop, slow: SlowKind | None) -> Afterwards:
    return await _overtaken(await _visitor(shop), "/login", slow)


async def _overtaken(browser: Browser, by: str, slow: SlowKind | None) -> Afterwards:
    """Send `by` while a slow request waits between reading and writing, then let that one end."""
    thief = browser.another()
    slow_status = None
    if slow is None:
        await _done(browser.ask("POST", by))
    else:
        gate = Gate()
        waiting = asyncio.create_task(browser.ask(*_SLOW[slow], gate=gate))
        await gate.until_all_wait()
        await _done(browser.ask("POST", by))
        gate.open()
        slow_status = (await waiting).status
    seen = await browser.see()
    old = await thief.see()
    return Afterwards(slow_status, seen["user"], old["user"], old_has_data=bool(old["data"]))


# --- ids that nobody gave --------------------------------------------------------------------------------


async def _made_up(shop: Shop) -> Browser:
    return Browser(shop.app, {COOKIE: shop.made_up()})


async def _ended(shop: Shop) -> Browser:
    """Return a browser with the cookie of a session that was logged out."""
    browser = await _visitor(shop)
    await _done(browser.ask("POST", "/login"))
    copy = browser.another()
    await _done(browser.ask("POST", "/logout"))
    return copy


async def _adopted(forging: Callable[[], Awaitable[Browser]]) -> int:
    """Return how many ids were taken over: what is stored by a request with one is found by the next."""
    adopted = 0
    for _ in range(FORGERIES):
        attacker = await forging()
        victim = attacker.another()
        before = await attacker.another().see()
        await attacker.ask("POST", "/set/planted")
        seen = await victim.see()
        adopted += bool(seen["data"]) or before["user"] is not None
    return adopted


# --- redirect --------------------------------------------------------------------------------------------


async def _redirect(shop: Shop) -> bool:
    """Follow a redirect the moment its headers are there, and see whether the target knows what was saved."""
    browser = await _visitor(shop)
    seen: list[bool] = []

    async def follow() -> None:
        seen.append("saved" in (await browser.see())["data"])

    await browser.ask("POST", "/save", at_headers=follow)
    return seen == [True]


# --- a hundred requests ----------------------------------------------------------------------------------


def mixed_requests() -> list[tuple[str, str, str]]:
    """Return a hundred requests as a shop gets them: who ("anyone" without a cookie), method and path."""
    requests = [("customer", "POST", "/login")]
    for number in range(20):
        if number:
            requests.append(("anyone", "GET", "/health"))
        requests.append(("anyone", "GET", "/session"))
        requests += [("customer", "GET", "/session")] * 2
        if number % 2:
            requests.append(("customer", "POST", f"/cart/sku-{number}"))
        elif number < 2 * _SAME_AGAIN:
            requests.append(("customer", "POST", "/set/theme"))
        else:
            requests.append(("customer", "GET", "/session"))
    return requests


async def _hundred(shop: Shop) -> Traffic:
    """Send a hundred requests and count what they cost."""
    customer = await _visitor(shop)
    await _done(customer.ask("POST", "/set/theme"))
    before = await shop.calls()
    answers: list[Answer] = []
    for who, method, path in mixed_requests():
        browser = customer if who == "customer" else Browser(shop.app)
        answers.append(await browser.ask(method, path))
    after = await shop.calls()
    raise_unless_well(answers)
    return Traffic(
        Calls(after.reads - before.reads, after.writes - before.writes),
        sum(len(answer.set_cookies) for answer in answers),
    )


def raise_unless_well(answers: list[Answer]) -> None:
    """Raise RuntimeError if one of the answers is an error."""
    statuses = {answer.status for answer in answers}
    if max(statuses) >= 400:
        raise RuntimeError(f"a shop answered with {sorted(statuses)}")


async def _visitor(shop: Shop) -> Browser:
    """Return a browser with a session that holds something, logged out."""
    browser = Browser(shop.app)
    await _done(browser.ask("POST", "/set/first"))
    return browser


async def _done(asking: Awaitable[Answer]) -> None:
    raise_unless_well([await asking])
