"""Customers of the shop, each with a browser: they log in, fill carts, read them back, log out.

Every browser keeps a ledger of what the shop confirmed to it and judges every page by it. Requests go to
the workers in turn, so that what one worker was told is read back through another; often two are under way
at once. An id that was logged out or rotated away is tried again, at once and at the end: it must stay dead,
also when a write arrives under it.
"""

import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from greenroom_cluster.demo.ledger import Effect, Ledger, Mismatch
from greenroom_cluster.demo.shop import CATALOGUE
from greenroom_cluster.demo.shopfront import Answer, Shopfront
from greenroom_cluster.demo.verdict import Verdict
from greenroom_cluster.runtime.tasks import open_tasks

SKUS = tuple(sorted(CATALOGUE))
THINK_SECONDS = (0.03, 0.25)
CHECK_PAUSE_SECONDS = 0.25
USER = "user"
NOTE = "note"


class DeadCookie:
    """An id that must never work again. `label` names it in reports."""

    def __init__(self, label: str, cookie: str) -> None:
        self.label = label
        self.cookie = cookie

    def __repr__(self) -> str:
        return f"<DeadCookie {self.label}>"


class Browser:
    """One customer. `run` shops until `closing` says so; `check` is the last look at the cart.

    `rng` decides everything that is random; `dead` collects the ids that ended.
    """

    def __init__(
        self, number: int, shop: Shopfront, verdict: Verdict, rng: random.Random, dead: list[DeadCookie]
    ) -> None:
        self.name = f"browser-{number:02}"
        self._shop = shop
        self._verdict = verdict
        self._rng = rng
        self._dead = dead
        self._cookie: str | None = None
        self._ledger = Ledger()
        self._visits = 0
        self._ids = 0
        self._turn = number

    @property
    def cart(self) -> str:
        """The label of the present session's cart."""
        return f"{self.name}/visit-{self._visits}"

    async def run(self, closing: Callable[[], bool]) -> None:
        """Shop until `closing()`; the request under way then is still finished."""
        while not closing():
            if self._cookie is None:
                await self._arrive()
            for _ in range(self._rng.randrange(6, 16)):
                if closing() or self._cookie is None:
                    break
                await self._do_something()
                await trio.sleep(self._rng.uniform(*THINK_SECONDS))
            if self._cookie is not None and not closing() and self._rng.random() < 0.6:
                await self._leave()

    async def check(self) -> None:
        """Judge the cart item by item, through every worker."""
        if self._cookie is None:
            return
        views: list[list[Mismatch]] = []
        for worker in range(len(self._shop.workers)):
            view = await self._view(worker)
            if view is None:
                self._verdict.session_lost(self.cart, self._ledger.confirmed_writes)
                return
            views.append(view)
        self._verdict.cart_checked(self.cart, views)

    async def _view(self, worker: int) -> list[Mismatch] | None:
        """Read the cart, insisting; None if the session is gone or cannot be read in time."""
        give_up = trio.current_time() + self._shop.patience_seconds
        while trio.current_time() < give_up:
            read = self._ledger.begin_read()
            answer = await self._shop.get(worker, "/cart", self._cookie)
            if answer.meaning == "done":
                return self._ledger.end_read(read, answer.shown)
            self._ledger.drop_read(read)
            if answer.meaning == "no-session":
                return None
            await trio.sleep(CHECK_PAUSE_SECONDS)
        return None

    # --- coming and going --------------------------------------------------------------------------------

    async def _arrive(self) -> None:
        """Begin a visit: half of the customers fill their cart before they log in."""
        self._visits += 1
        self._ledger = Ledger()
        await self._shop.get(self._next(), "/", None)
        if self._rng.random() < 0.5:
            await self._add(self._sku())
            if self._cookie is None:
                return
            for _ in range(self._rng.randrange(3)):
                await self._do_something()
        await self._login()

    async def _login(self) -> None:
        """Log in; the id held before, if any, is dead from then on."""
        old = self._cookie
        write = self._ledger.begin(USER, Effect("set", self.name))
        answer = await self._shop.post(self._next(), "/login", old, user=self.name)
        if answer.meaning == "done" and answer.cookie is not None:
            self._close(write, answer)
            self._cookie = answer.cookie
            self._ids += 1
            if old is not None:
                await self._bury(old)
        elif answer.meaning == "unknown" and old is not None:
            # The id may have changed to one that nobody knows: this cart can no longer be judged.
            self._cookie = None
        else:
            self._close(write, answer)

    async def _leave(self) -> None:
        """Look at the cart for the last time and log out, sometimes while another request is under way."""
        await self.check()
        cookie = self._cookie
        if cookie is None:
            return
        outcome: list[Answer] = []

        async def log_out() -> None:
            outcome.append(await self._shop.post(self._next(), "/logout", cookie))

        async def meddle() -> None:
            await self._shop.post(self._next(), "/cart/add", cookie, sku=self._sku(), quantity="1")

        async with open_tasks() as nursery:
            nursery.start_soon(log_out)
            if self._rng.random() < 0.5:
                nursery.start_soon(meddle)
        self._cookie = None
        if outcome[0].meaning == "done":
            self._verdict.confirmed()
            await self._bury(cookie)

    async def _bury(self, cookie: str) -> None:
        """Note that an id is dead, and look at once whether it is."""
        dead = DeadCookie(f"{self.cart}/id-{self._ids}", cookie)
        self._ids += 1
        self._dead.append(dead)
        self._verdict.login_ended(dead.label)
        for worker in range(len(self._shop.workers)):
            await probe(self._shop, self._verdict, dead, worker, "at once")
        if self._rng.random() < 0.3:
            answer = await self._shop.post(self._next(), "/note", cookie, text="from beyond")
            if answer.meaning == "done":
                self._verdict.came_back(dead.label, "a write was accepted")

    # --- shopping ----------------------------------------------------------------------------------------

    async def _do_something(self) -> None:
        first, second = self._rng.sample(SKUS, 2)
        actions = (
            (5, partial(self._at_once, partial(self._add, first), partial(self._add, second))),
            (3, partial(self._at_once, partial(self._add, first), partial(self._add, first))),
            (3, partial(self._at_once, partial(self._add, first), self._write_note)),
            (3, partial(self._at_once, partial(self._add, first), self._read)),
            (3, partial(self._add, first)),
            (2, partial(self._remove, first)),
            (6, self._read),
            (1, self._look_at_account),
            (1, self._login),
        )
        weights, choices = zip(*actions, strict=True)
        await self._rng.choices(choices, weights)[0]()

    async def _at_once(self, *actions: Callable[[], Awaitable[None]]) -> None:
        async with open_tasks() as nursery:
            for action in actions:
                nursery.start_soon(action)

    async def _add(self, sku: str) -> None:
        quantity = self._rng.randrange(1, 10)
        await self._write(
            f"cart/{sku}", Effect("add", quantity), "/cart/add", sku=sku, quantity=str(quantity)
        )

    async def _remove(self, sku: str) -> None:
        await self._write(f"cart/{sku}", Effect("set", None), "/cart/remove", sku=sku)

    async def _write_note(self) -> None:
        text = f"note {self._rng.randrange(10**9)}"
        await self._write(NOTE, Effect("set", text), "/note", text=text)

    async def _write(self, cell: str, effect: Effect, path: str, **form: str) -> None:
        cookie = self._cookie
        write = self._ledger.begin(cell, effect)
        answer = await self._shop.post(self._next(), path, cookie, **form)
        self._close(write, answer)
        if answer.meaning == "done" and cookie is None and answer.cookie is not None:
            self._cookie = answer.cookie
            self._ids += 1
        if answer.meaning == "no-session":
            self._session_is_gone(f"POST {path}")

    def _close(self, write: int, answer: Answer) -> None:
        if answer.meaning == "done":
            self._verdict.confirmed()
            self._ledger.confirm(write)
        elif answer.meaning != "unknown":
            self._ledger.refuse(write)

    async def _read(self) -> None:
        read = self._ledger.begin_read()
        answer = await self._shop.get(self._next(), "/cart", self._cookie)
        if answer.meaning == "done":
            self._verdict.read_showed(self.cart, self._ledger.end_read(read, answer.shown))
            return
        self._ledger.drop_read(read)
        if answer.meaning == "no-session":
            self._session_is_gone("GET /cart")

    async def _look_at_account(self) -> None:
        answer = await self._shop.get(self._next(), "/account", self._cookie)
        if answer.meaning == "no-session":
            # Rightly so for who is not logged in; a look at the cart tells whether the session is gone.
            await self._read()

    def _session_is_gone(self, what: str) -> None:
        """Count a session that vanished though nobody ended it, once."""
        if self._cookie is None:
            return
        self._cookie = None
        self._verdict.user_error(f"{what}: the session is gone")
        self._verdict.session_lost(self.cart, self._ledger.confirmed_writes)

    def _next(self) -> int:
        """Take the workers in turn."""
        self._turn += 1
        return self._turn

    def _sku(self) -> str:
        return self._rng.choice(SKUS)


async def probe(shop: Shopfront, verdict: Verdict, dead: DeadCookie, worker: int, when: str) -> None:
    """Try an id that has ended; tried again for a time while the shop gives no clear answer."""
    give_up = trio.current_time() + shop.patience_seconds
    while trio.current_time() < give_up:
        answer = await shop.get(worker, "/cart", dead.cookie)
        if answer.meaning == "done":
            verdict.came_back(dead.label, f"seen {when} by worker {worker}")
        if answer.meaning in {"done", "no-session"}:
            return
        await trio.sleep(CHECK_PAUSE_SECONDS)
    verdict.came_back(dead.label, f"not shown to be dead {when} by worker {worker}")


async def check_all(
    shop: Shopfront, verdict: Verdict, browsers: list[Browser], dead: list[DeadCookie]
) -> None:
    """Judge every cart, and try every dead id once more, through every worker; a few at a time."""
    limit = trio.CapacityLimiter(16)

    async def limited(action: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            await action()

    async with open_tasks() as nursery:
        for browser in browsers:
            nursery.start_soon(limited, browser.check)
        for cookie in dead:
            for worker in range(len(shop.workers)):
                nursery.start_soon(limited, partial(probe, shop, verdict, cookie, worker, "at the end"))
