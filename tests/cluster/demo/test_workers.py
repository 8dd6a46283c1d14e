"""The shop's workers are real processes that serve, say why they do not, and are gone afterwards."""

import os
import random
from pathlib import Path

import pytest
import trio

from greenroom_cluster.demo import workers
from greenroom_cluster.demo.browsers import Browser, check_all
from greenroom_cluster.demo.scenario import _http_client
from greenroom_cluster.demo.shopfront import Shopfront
from greenroom_cluster.demo.verdict import Verdict
from greenroom_cluster.runtime.processes import children_of

pytestmark = [pytest.mark.trio, pytest.mark.system]


def workers_running() -> list[int]:
    return [
        pid
        for pid in children_of(os.getpid())
        if b"greenroom_cluster.demo.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def test_a_worker_serves_browsers_over_real_sockets_and_is_gone_afterwards() -> None:
    verdict = Verdict()
    async with workers.shop_workers("memory://", count=1) as addresses, _http_client(4) as client:
        assert len(workers_running()) == 1
        shop = Shopfront(client, addresses, verdict)
        browsers = [Browser(number, shop, verdict, random.Random(number), []) for number in range(4)]
        async with trio.open_nursery() as nursery:
            for browser in browsers:
                nursery.start_soon(browser.run, lambda: verdict.confirmed_writes >= 60)
        await check_all(shop, verdict, browsers, [])
    result = verdict.result(recover_actor_seconds=0, recover_node_seconds=0, browsers=4, seed=0, seconds=0)
    assert result.problems == ()
    assert (result.user_errors, result.exit_code) == (0, 0)
    assert result.confirmed_writes >= 60
    assert workers_running() == []


async def test_workers_are_gone_when_the_demo_is_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with workers.shop_workers("memory://") as addresses:
            assert len(set(addresses)) == len(workers_running()) == workers.WORKERS
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert workers_running() == []


async def test_a_worker_that_cannot_start_is_reported() -> None:
    with pytest.raises(workers.WorkerFailedError, match="ended with status"):
        async with workers.shop_workers("carrier-pigeon://roof"):
            pass
    assert workers_running() == []


async def test_a_worker_ends_with_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shop whose demo was killed must not linger: here the "demo" is a process that is killed at once."""
    stand_in = await trio.lowlevel.open_process(["sleep", "60"])
    monkeypatch.setattr(workers.os, "getpid", lambda: stand_in.pid)
    with pytest.raises(workers.WorkerFailedError, match="status 75"):
        async with workers.shop_workers("memory://", count=1):
            pass
    stand_in.kill()
    await stand_in.wait()
