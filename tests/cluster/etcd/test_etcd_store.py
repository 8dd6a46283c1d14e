"""A coordinator's part in etcd, driven: it acts when something has happened or is due, and rests else."""

from collections.abc import Callable

import pytest
import trio

from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.leadership import Leadership
from greenroom_cluster.coordination.etcd.settings import EtcdSettings
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.etcd_store import Candidate
from tests.cluster.etcd.fake import Gateway, Store

pytestmark = pytest.mark.trio


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
    settings = EtcdSettings(urls=("http://one:2379",), prefix="/greenroom/test")
    async with EtcdClient(settings, transport=gateway) as client, trio.open_nursery() as nursery:
        candidate = Candidate(client, Leadership(settings.prefix, "c1", now_ns()))
        nursery.start_soon(candidate.run)
        async with candidate.leading(ClusterOptions("test", 4, 2)) as kept:
            assert kept.map.version == 1
            begun, asked = steps, [path for _, path in gateway.asked]
            renewals = asked.count("/v3/lease/keepalive")
            await until(lambda: [p for _, p in gateway.asked].count("/v3/lease/keepalive") >= renewals + 2)
            assert steps - begun < 20
        candidate.stop()
    assert ("one:2379", "/v3/lease/revoke") in gateway.asked
