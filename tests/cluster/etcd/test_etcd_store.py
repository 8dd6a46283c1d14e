"""A coordinator's part in etcd, driven: it acts when something has happened or is due, and rests else."""

import base64
import json
from collections.abc import Callable

import httpx
import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from greenroom_cluster.coordination.etcd.candidacy import Candidacy
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.leadership import Leadership
from greenroom_cluster.coordination.etcd.settings import EtcdSettings
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.etcd_store import Candidate
from tests.cluster.etcd.fake import Gateway, Store

pytestmark = pytest.mark.trio


SETTINGS = EtcdSettings(urls=("http://one:2379",), prefix="/greenroom/test")


OPTIONS = ClusterOptions("test", 4, 2)


def candidacy() -> Candidacy:
    return Candidacy(Leadership(SETTINGS.prefix, "c1", now_ns()), OPTIONS, bytes(16))


class Deaf(Gateway):
    """Members that do not answer, nor do, what writes a map."""

    deaf = True
    tried = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.deaf and request.url.path == "/v3/kv/txn":
            operations = json.loads(await request.aread())["success"]
            keys = [each["request_put"]["key"] for each in operations if "request_put" in each]
            if any(base64.b64decode(key).endswith(b"/map/meta") for key in keys):
                self.tried += 1
                raise httpx.ReadTimeout("", request=request)
        return await super().handle_async_request(request)


class Hasty(Gateway):
    """Members whose first lease is over before it can be used."""

    hasty = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if self.hasty and request.url.path == "/v3/lease/grant":
            self.hasty = False
            self.store.revoke({"ID": max(self.store.leases)})
        return answer


class Forbidding(Gateway):
    """Members that let the user have no key for a while, as when its role is taken away and given back."""

    forbidding = False
    forbade = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.forbidding:
            self.forbade += 1
            return httpx.Response(403, json={"code": 7, "message": "etcdserver: permission denied"})
        return await super().handle_async_request(request)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_a_leader_rests_between_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, steps = Gateway(Store(trio.current_time)), 0
    original = Leadership.step

    def step(self: Leadership, *arguments: object) -> object:
        nonlocal steps
        steps += 1
        return original(self, *arguments)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(Leadership, "step", step)
    async with EtcdClient(SETTINGS, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, candidacy())
        nursery.start_soon(candidate.run)
        async with candidate.leading() as kept:
            assert kept.map.version == 1
            begun, asked = steps, [path for _, path in gateway.asked]
            renewals = asked.count("/v3/lease/keepalive")
            await until(lambda: [p for _, p in gateway.asked].count("/v3/lease/keepalive") >= renewals + 2)
            assert steps - begun < 20
        candidate.stop()
    assert ("one:2379", "/v3/lease/revoke") in gateway.asked


async def test_who_resigns_before_its_first_map_is_kept_leads_later() -> None:
    gateway = Deaf(Store(trio.current_time))
    async with EtcdClient(SETTINGS, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, candidacy())
        nursery.start_soon(candidate.run)
        led = trio.Event()

        async def lead() -> None:
            async with candidate.leading() as kept:
                assert kept.map.version == 1
                led.set()
                await trio.sleep_forever()

        nursery.start_soon(lead)
        await until(lambda: gateway.tried > 0)
        for lease in list(gateway.store.leases):
            gateway.store.revoke({"ID": lease})
        await until(lambda: len(gateway.store.leases) > 0)
        gateway.deaf = False
        with trio.fail_after(30):
            await led.wait()
        nursery.cancel_scope.cancel()
        candidate.stop()


async def test_a_lease_that_is_over_before_its_use_is_followed_by_another() -> None:
    gateway = Hasty(Store(trio.current_time))
    async with EtcdClient(SETTINGS, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, candidacy())
        nursery.start_soon(candidate.run)
        with trio.fail_after(30):
            async with candidate.leading() as kept:
                assert kept.map.version == 1
        candidate.stop()
    assert not gateway.hasty


async def test_who_is_refused_in_the_middle_stands_by_and_leads_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Its process goes on: ended, it would be missed once etcd has been mended."""
    monkeypatch.setattr(
        "greenroom_cluster.runtime.etcd_store.now_ns", lambda: round(trio.current_time() * 1e9)
    )
    gateway = Forbidding(Store(trio.current_time))
    async with EtcdClient(SETTINGS, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, Candidacy(Leadership(SETTINGS.prefix, "c1", 0), OPTIONS, bytes(16)))
        nursery.start_soon(candidate.run)
        with trio.fail_after(60), capture_logs() as lines:
            async with candidate.leading():
                gateway.forbidding = True
                await trio.sleep_forever()  # until it resigns, for it cannot renew its lease
            await trio.sleep(30)
        assert gateway.forbade < 60, "it asks now and then"
        (said, *_) = [each for each in lines if each["event"] == "etcd_refused"]
        assert said["log_level"] == "error"
        assert "grant that user a role" in said["reason"]
        gateway.forbidding = False
        with trio.fail_after(30):
            async with candidate.leading() as kept:
                assert kept.map.version >= 1
        candidate.stop()


async def test_a_password_that_etcd_does_not_take_any_more_is_waited_for() -> None:
    """It stands by until its file holds the new one, for which no process need be started again."""
    gateway, password = Gateway(Store(trio.current_time)), "green"
    gateway.store.user = ("room", "green")
    settings = msgspec.structs.replace(SETTINGS, user="room")
    async with (
        EtcdClient(settings, password=lambda: password, transport=gateway) as client,
        trio.open_nursery() as nursery,
    ):
        candidate = Candidate(client, candidacy())
        nursery.start_soon(candidate.run)
        with trio.fail_after(30):
            async with candidate.leading():
                gateway.store.user = ("room", "red")
                gateway.store.tokens.clear()
                await trio.sleep_forever()
            password = "red"
            async with candidate.leading() as kept:
                assert kept.map.version == 1
        candidate.stop()


async def test_who_ends_while_a_map_is_being_kept_keeps_its_marks_as_well() -> None:
    gateway = Deaf(Store(trio.current_time))
    gateway.deaf = False
    async with EtcdClient(SETTINGS, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, candidacy())
        nursery.start_soon(candidate.run)
        async with candidate.leading() as kept:
            later = msgspec.structs.replace(kept.map, version=2)
            gateway.deaf, tried = True, gateway.tried
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_when, scope, lambda: gateway.tried > tried)
                await kept.store.save(later, vouched=True)
            gateway.deaf = False
            with trio.fail_after(30):
                await kept.store.save_marks({b"d": 7})
        candidate.stop()
    assert b"/greenroom/test/marks" in gateway.store.keys


async def test_a_member_that_falls_silent_delays_a_decision_shortly(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """It has done what it was asked: the next one says so, and it is not done again."""
    monkeypatch.setattr(
        "greenroom_cluster.runtime.etcd_store.now_ns", lambda: round(trio.current_time() * 1e9)
    )
    gateway = Gateway(Store(trio.current_time))
    settings = msgspec.structs.replace(SETTINGS, urls=("http://one:2379", "http://two:2379"))
    async with EtcdClient(settings, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, Candidacy(Leadership(SETTINGS.prefix, "c1", 0), OPTIONS, bytes(16)))
        nursery.start_soon(candidate.run)
        async with candidate.leading() as kept:
            await trio.sleep(10)
            revision, began = gateway.store.revision, trio.current_time()
            gateway.slow["one:2379"] = 60.0
            with trio.fail_after(0.5):
                await kept.store.save(msgspec.structs.replace(kept.map, version=2), vouched=True)
            assert trio.current_time() - began == pytest.approx(0.3)
            assert gateway.store.revision == revision + 1
            await trio.sleep(10)
            assert candidate.serves(1)
        candidate.stop()


async def cancel_when(scope: trio.CancelScope, condition: Callable[[], bool]) -> None:
    await until(condition)
    scope.cancel()
