""" "Your devices" through the middleware, on a real cluster, while the actors that hold them are killed.

Exact means: what was logged in before a log-out-everywhere began is out when it is answered, whatever else
goes on; the device that asked stays in; nobody who was out gets in again; and the list names who is in.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from greenroom import ClusterStore
from greenroom.web import RequestSession, Session, SessionMiddleware
from tests.system.stage import SharedCluster, tree

pytestmark = [pytest.mark.system, pytest.mark.trio]

ROUNDS = 3
DEVICES = 12
DEADLINE_SECONDS = 20.0


def session_of(request: Request) -> RequestSession:
    session: Any = request.session
    assert isinstance(session, RequestSession)
    return session


async def login(request: Request) -> JSONResponse:
    session_of(request).greenroom.login(request.path_params["user"])
    return JSONResponse({})


async def account(request: Request) -> JSONResponse:
    return JSONResponse({"user": session_of(request).greenroom.user_id})


async def note(request: Request) -> JSONResponse:
    session_of(request)["note"] = request.query_params["text"]
    return JSONResponse({})


async def devices(request: Request) -> JSONResponse:
    session = session_of(request)
    listed = await session.greenroom.devices()
    return JSONResponse({each.label: each.handle for each in listed})


async def end(request: Request) -> JSONResponse:
    await session_of(request).greenroom.end_device(request.query_params["handle"])
    return JSONResponse({})


async def everywhere(request: Request) -> JSONResponse:
    session_of(request).greenroom.logout_everywhere(keep_current=True)
    return JSONResponse({})


class Site:
    """The app, and the devices of its users."""

    def __init__(self, store: ClusterStore) -> None:
        self.app = Starlette(
            routes=[
                Route("/login/{user}", login, methods=["POST"]),
                Route("/account", account),
                Route("/note", note, methods=["POST"]),
                Route("/devices", devices),
                Route("/end", end, methods=["POST"]),
                Route("/everywhere", everywhere, methods=["POST"]),
            ]
        )
        self.app.add_middleware(
            SessionMiddleware, session=Session(secret="a secret for tests only, long enough", store=store)
        )

    async def device(self, user: str, label: str) -> "Device":
        device = Device(self.app, label)
        await device.post(f"/login/{user}")
        return device


class Device:
    """One browser, named by its User-Agent."""

    def __init__(self, app: Starlette, label: str) -> None:
        self.label = label
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="https://shop.example",
            headers={"user-agent": label},
            timeout=None,
        )

    async def post(self, path: str) -> None:
        response = await self._client.post(path)
        assert response.status_code == 200, (self.label, path, response.text)

    async def get(self, path: str) -> Any:
        response = await self._client.get(path)
        assert response.status_code == 200, (self.label, path, response.text)
        return response.json()

    async def is_in(self, user: str) -> bool:
        found = (await self.get("/account"))["user"]
        assert found in {user, None}, "nobody ever becomes someone else"
        return bool(found == user)


@asynccontextmanager
async def taking_notes(devices: list[Device]) -> AsyncIterator[None]:
    """Let devices write to their sessions around the body, which must bring none back to life."""
    over = False

    async def write(device: Device) -> None:
        count = 0
        while not over:
            count += 1
            await device.post(f"/note?text={count}")

    async with trio.open_nursery() as nursery:
        for device in devices:
            nursery.start_soon(write, device)
        yield
        over = True


async def logged_in(site: Site, user: str, labels: list[str]) -> list[Device]:
    found: list[Device] = []

    async def one(label: str) -> None:
        found.append(await site.device(user, label))

    async with trio.open_nursery() as nursery:
        for label in labels:
            nursery.start_soon(one, label)
    return sorted(found, key=lambda device: labels.index(device.label))


async def kill_the_busiest(cluster: SharedCluster) -> None:
    [process] = tree((await cluster.busiest_primary()).pid)
    process.kill()
    await process.wait_exited()


async def test_devices_are_exact_while_shards_fail_over(cluster: SharedCluster) -> None:
    store = ClusterStore(
        ",".join(cluster.cluster.seeds),
        cluster=cluster.settings.cluster,
        deadline_seconds=DEADLINE_SECONDS,
    )
    async with store:
        site = Site(store)
        for number in range(ROUNDS):
            await one_round(cluster, site, f"alice-{number}")
            await cluster.healthy()


async def one_round(cluster: SharedCluster, site: Site, user: str) -> None:
    labels = [f"{user} device {n:02}" for n in range(DEVICES)]
    mine, stolen, *others = await logged_in(site, user, labels)
    stranger = await site.device(f"not-{user}", "stranger")
    listed = await mine.get("/devices")
    assert sorted(listed) == labels

    late: list[Device] = []
    async with taking_notes([stolen, *others[:3]]), trio.open_nursery() as nursery:
        nursery.start_soon(kill_the_busiest, cluster)
        await mine.post(f"/end?handle={listed[stolen.label]}")
        assert not await stolen.is_in(user), "a device that was ended is out at once"
        assert sorted(await mine.get("/devices")) == [each for each in labels if each != stolen.label]

        # A login that meets the log-out-everywhere may be in or out, but the list must know which.
        meeting = [f"{user} meeting {n}" for n in range(3)]
        nursery.start_soon(partial(meet, site, user, meeting, late))
        await mine.post("/everywhere")
        for device in (stolen, *others):
            assert not await device.is_in(user), f"{device.label} was logged in before"
        assert await mine.is_in(user)

    after = await site.device(user, f"{user} afterwards")
    present = [device for device in (mine, stolen, *others, *late, after) if await device.is_in(user)]
    assert {mine.label, after.label} <= {device.label for device in present}
    assert not {stolen.label, *(each.label for each in others)} & {device.label for device in present}
    assert sorted(await mine.get("/devices")) == sorted(device.label for device in present)
    assert await stranger.is_in(f"not-{user}")


async def meet(site: Site, user: str, labels: list[str], late: list[Device]) -> None:
    late.extend(await logged_in(site, user, labels))
