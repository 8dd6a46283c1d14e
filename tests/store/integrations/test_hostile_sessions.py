"""In every framework: a stored session that cannot be read, and cookies that another host has planted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from greenroom import MemoryStore
from greenroom.web import Session
from tests.store.integrations.sites import SITES
from tests.store.poison import NEWER, POISONS, holds, poison


class Visitors:
    """A site of one framework, and what requests with these cookies get from it."""

    def __init__(self, client: httpx.AsyncClient, sessions: Session, store: MemoryStore) -> None:
        self.client, self.sessions, self.store = client, sessions, store

    async def ask(self, path: str, *values: str) -> httpx.Response:
        name = self.sessions.cookie.name
        headers = {"cookie": "; ".join(f"{name}={value}" for value in values)} if values else {}
        response = await self.client.get(path, headers=headers)
        self.client.cookies.clear()
        return response

    async def login(self, user: str) -> tuple[str, str]:
        """Log in; return the session's id and the value of the cookie."""
        set_cookie = (await self.ask(f"/login/{user}")).headers["set-cookie"]
        value = set_cookie.partition("=")[2].partition(";")[0]
        return self.sessions.signer.verify(value.encode()) or "", value


@pytest.fixture(params=SITES)
def tell(request: pytest.FixtureRequest) -> Callable[[Callable[[Visitors], Awaitable[None]]], None]:
    def run(story: Callable[[Visitors], Awaitable[None]]) -> None:
        async def main() -> None:
            store = MemoryStore()
            # The server of aiohttp's tests speaks http.
            sessions = Session(
                secret="a secret for tests only, long enough", store=store, secure=request.param != "aiohttp"
            )
            async with SITES[request.param](sessions) as client:
                await story(Visitors(client, sessions, store))

        asyncio.run(asyncio.wait_for(main(), 60))

    return run


@pytest.mark.parametrize("data", POISONS.values(), ids=POISONS)
def test_a_poisoned_session_is_none(tell: Any, data: bytes) -> None:
    async def story(visitors: Visitors) -> None:
        session_id, cookie = await visitors.login("alice")
        poison(visitors.store, session_id, data)
        response = await visitors.ask("/who", cookie)
        assert (response.status_code, response.json()) == (200, [None, {}])
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert response.headers["vary"] == "Cookie"
        response = await visitors.ask("/login/alice", cookie)
        assert response.status_code == 200
        assert not holds(visitors.store, session_id)
        assert visitors.sessions.statistics().unreadable == 2

    tell(story)


@pytest.mark.parametrize("data", [NEWER, POISONS["no dict"]], ids=["newer", "no dict"])
def test_a_logout_deletes_it(tell: Any, data: bytes) -> None:
    async def story(visitors: Visitors) -> None:
        session_id, cookie = await visitors.login("alice")
        poison(visitors.store, session_id, data)
        response = await visitors.ask("/logout", cookie)
        assert response.status_code == 200
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert not holds(visitors.store, session_id)

    tell(story)


def test_one_of_a_later_version_is_left_alone(tell: Any) -> None:
    async def story(visitors: Visitors) -> None:
        session_id, cookie = await visitors.login("alice")
        poison(visitors.store, session_id, NEWER)
        response = await visitors.ask("/who", cookie)
        assert (response.status_code, response.json()) == (200, [None, {}])
        assert "set-cookie" not in response.headers
        assert holds(visitors.store, session_id)

    tell(story)


def test_junk_before_the_real_cookie_does_not_hide_it(tell: Any) -> None:
    async def story(visitors: Visitors) -> None:
        _, cookie = await visitors.login("alice")
        junk = [f"junk-{number}" for number in range(30)]
        response = await visitors.ask("/who", *junk, cookie)
        assert response.json() == ["alice", {}]

    tell(story)


def test_sessions_of_two_users_are_nobodys(tell: Any) -> None:
    async def story(visitors: Visitors) -> None:
        victim, own = await visitors.login("alice")
        planter, planted = await visitors.login("mallory")
        response = await visitors.ask("/who", planted, own)
        assert (response.status_code, response.json()) == (200, [None, {}])
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert not holds(visitors.store, victim)
        assert not holds(visitors.store, planter)
        assert visitors.sessions.statistics().contested == 1
        # The cookie that is left, whose path or domain was the planter's, leads nowhere.
        assert (await visitors.ask("/who", planted)).json() == [None, {}]

    tell(story)
