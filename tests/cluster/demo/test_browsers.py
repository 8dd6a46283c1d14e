"""The customers find nothing wrong with a good store, and every kind of wrong with bad ones."""

import contextlib
import random
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

import greenroom
from greenroom_cluster.demo.browsers import Browser, DeadCookie, check_all
from greenroom_cluster.demo.shop import create_app
from greenroom_cluster.demo.shopfront import PATIENCE_SECONDS, Shopfront
from greenroom_cluster.demo.verdict import EXIT_LOST, DemoResult, Verdict

pytestmark = pytest.mark.trio

SECRET = "a secret for tests only, long enough"
WORKERS = ("http://one", "http://two")


@pytest.fixture
def autojump_clock() -> MockClock:
    """Thinking takes no time."""
    return MockClock(autojump_threshold=0)


async def shopping(
    store: greenroom.BaseSessionStore,
    *,
    seed: int = 1,
    seconds: float = 20,
    patience_seconds: float = PATIENCE_SECONDS,
) -> DemoResult:
    """Let eight browsers shop over `store` through two workers, and judge."""
    verdict, dead = Verdict(), list[DeadCookie]()
    client = httpx.AsyncClient(
        mounts={worker: httpx.ASGITransport(app=create_app(store, SECRET)) for worker in WORKERS},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
    shop = Shopfront(client, WORKERS, verdict, patience_seconds)
    browsers = [
        Browser(number, shop, verdict, random.Random(f"{seed}/{number}"), dead) for number in range(8)
    ]
    closing_time = trio.current_time() + seconds
    async with client:
        async with trio.open_nursery() as nursery:
            for browser in browsers:
                nursery.start_soon(browser.run, lambda: trio.current_time() >= closing_time)
        await check_all(shop, verdict, browsers, dead)
    return verdict.result(
        recover_actor_seconds=0.1, recover_node_seconds=0.2, browsers=8, seed=seed, seconds=seconds
    )


class SlowStore(greenroom.MemoryStore):
    """A store that lets other tasks in at every operation, so that requests really overlap."""

    async def get(self, session_id: str) -> greenroom.SessionData | None:
        await pause()
        return await super().get(session_id)

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        await pause()
        session = await super().patch(session_id, **more)
        await pause()
        return session


async def pause() -> None:
    """Wait for a moment of the test's clock."""
    with trio.move_on_after(random.uniform(0.001, 0.05)):
        await trio.Event().wait()


@pytest.mark.parametrize("make_store", [greenroom.MemoryStore, SlowStore])
async def test_a_good_store_passes(
    make_store: Callable[[], greenroom.BaseSessionStore], autojump_clock: MockClock
) -> None:
    result = await shopping(make_store())
    assert result.problems == ()
    assert result.exit_code == 0
    assert (result.user_errors, result.lost_writes, result.wrong_carts) == (0, 0, 0)
    assert result.confirmed_writes > 300
    assert result.carts_checked > 10
    assert result.logouts_checked > 10


class ForgetfulStore(SlowStore):
    """Acknowledges every 50th patch without applying it."""

    patches = 0

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        self.patches += 1
        if self.patches % 50 == 0:
            session = await self.get(session_id)
            if session is None:
                raise greenroom.SessionNotFoundError("gone")
            return session
        return await super().patch(session_id, **more)


class RepeatingStore(SlowStore):
    """Applies a patch again some time later, as a retry without exactly-once would."""

    patches = 0
    late: tuple[str, dict[str, Any]] | None = None

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        self.patches += 1
        if self.patches % 20 == 0:
            self.late = (session_id, {"set": more.get("set"), "unset": more.get("unset", ())})
        elif self.patches % 20 == 10 and self.late is not None:
            with contextlib.suppress(greenroom.SessionNotFoundError):
                await super().patch(self.late[0], **self.late[1])
        return await super().patch(session_id, **more)


class StaleStore(SlowStore):
    """Reads every tenth time what the session was one read before."""

    reads = 0

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, greenroom.SessionData] = {}

    async def get(self, session_id: str) -> greenroom.SessionData | None:
        self.reads += 1
        session = await super().get(session_id)
        if session is None:
            return None
        old = self.before.get(session_id)
        self.before[session_id] = session
        return old if old is not None and self.reads % 10 == 0 else session


class ImmortalStore(SlowStore):
    """Acknowledges a logout without doing it."""

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        more.pop("expires", None)
        return await super().patch(session_id, **more)

    async def delete(self, session_id: str) -> None:
        return None


class TwoHeadedStore(SlowStore):
    """Leaves the old id alive when it rotates."""

    async def rotate(self, session_id: str, **more: Any) -> greenroom.SessionData:
        old = await self.get(session_id)
        session = await super().rotate(session_id, **more)
        if old is not None:
            await self.create(old)
        return session


class VanishingStore(SlowStore):
    """Loses a whole session now and then."""

    reads = 0

    async def get(self, session_id: str) -> greenroom.SessionData | None:
        self.reads += 1
        if self.reads % 200 == 0:
            await self.delete(session_id)
        return await super().get(session_id)


async def test_a_store_that_forgets_writes_is_found(autojump_clock: MockClock) -> None:
    result = await shopping(ForgetfulStore())
    assert result.lost_writes > 0
    assert result.wrong_carts > 0
    assert result.exit_code == EXIT_LOST


async def test_a_store_that_repeats_writes_is_found(autojump_clock: MockClock) -> None:
    result = await shopping(RepeatingStore())
    assert result.wrong_carts > 0
    assert result.exit_code == EXIT_LOST


async def test_a_store_that_reads_stale_is_found(autojump_clock: MockClock) -> None:
    result = await shopping(StaleStore())
    assert result.stale_reads > 0
    assert result.exit_code == EXIT_LOST


@pytest.mark.parametrize("make_store", [ImmortalStore, TwoHeadedStore])
async def test_a_login_that_comes_back_is_found(
    make_store: Callable[[], greenroom.BaseSessionStore], autojump_clock: MockClock
) -> None:
    result = await shopping(make_store())
    assert result.resurrected > 0
    assert result.exit_code == EXIT_LOST


async def test_a_store_that_loses_sessions_is_found(autojump_clock: MockClock) -> None:
    result = await shopping(VanishingStore())
    assert result.lost_writes > 0
    assert result.exit_code == EXIT_LOST


class AbsentStore(SlowStore):
    """Refuses every read from 5 s to 45 s after it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = trio.current_time()

    async def get(self, session_id: str) -> greenroom.SessionData | None:
        if 5 <= trio.current_time() - self.made < 45:
            raise greenroom.UnavailableError("nothing serves")
        return await super().get(session_id)


@pytest.mark.parametrize(("patience_seconds", "loses"), [(60.0, False), (20.0, True)])
async def test_a_store_that_is_away_loses_nothing_to_the_patient(
    patience_seconds: float, loses: bool, autojump_clock: MockClock
) -> None:
    result = await shopping(AbsentStore(), seconds=50, patience_seconds=patience_seconds)
    assert result.user_errors > 10
    assert (result.wrong_carts + result.resurrected > 0) is loses


class RefusingStore(SlowStore):
    """Refuses some operations, and leaves some undecided, applied or not; never lies."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(3)

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        fate = self.rng.random()
        if fate < 0.02:
            raise greenroom.UnavailableError("no primary in time")
        if fate < 0.04:
            raise greenroom.OutcomeUnknownError("not answered", harmless_to_repeat=False)
        session = await super().patch(session_id, **more)
        if fate < 0.06:
            raise greenroom.OutcomeUnknownError("not answered", harmless_to_repeat=False)
        return session


async def test_truthful_errors_count_as_errors_and_not_as_losses(autojump_clock: MockClock) -> None:
    result = await shopping(RefusingStore())
    assert result.user_errors > 10
    assert (result.lost_writes, result.wrong_carts, result.resurrected) == (0, 0, 0)
    assert result.exit_code == 0
