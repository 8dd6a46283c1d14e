"""What happens to hosts, coordinators and etcd, under load: nothing is lost or stale, and waits are bounded.

GREENROOM_HOSTS_ROUNDS says how often each story is told; from 2 on, with events that are left out otherwise.
"""

import itertools
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from tests.cluster.etcd.stage import needs_etcd
from tests.hosts.network import needs_hosts
from tests.hosts.stage import APPS, ETCD, NODES, SPARE, ZONES, Hosts, stopped, until
from tests.hosts.story import ALONE, DEAF, LOST, MOVED, NOTHING, UNDECIDED, Report, Story, told

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(3600), needs_hosts, needs_etcd]

ROUNDS = int(os.environ.get("GREENROOM_HOSTS_ROUNDS", "1"))
LONG = ROUNDS > 1
OUTAGE_SECONDS = 10.0
SLOW_SECONDS = 0.02
_seeds = itertools.count(100)
each_round = pytest.mark.parametrize("turn", range(ROUNDS))


@each_round
async def test_coordinators_and_etcd_alone_cost_no_caller_anything(
    turn: int, hosts: Hosts, tmp_path: Path, record_property: Report
) -> None:
    async with told(hosts, tmp_path, next(_seeds), record_property) as story:
        async with story.event("nothing", NOTHING):
            await trio.sleep(3)
        await etcd_loses_its_leader(hosts, story)
        await etcd_is_away(hosts, story, "etcd cut off from the coordinators", hosts.etcd_out_of_reach())
        await etcd_is_away(hosts, story, "all of etcd paused for ten seconds", hosts.etcd_paused())
        if LONG:
            await etcd_is_away(hosts, story, "all of etcd killed for ten seconds", hosts.etcd_killed())
        await leader_is_killed(hosts, story)
        async with story.event("leading coordinator paused for five seconds, and woken", NOTHING):
            first = await hosts.until_leader()
            with stopped(hosts.coordinators[first].child):
                await hosts.until_leader(first)
                await trio.sleep(2)
            await hosts.until_resigned(first)
            await hosts.until_whole()


async def etcd_loses_its_leader(hosts: Hosts, story: Story) -> None:
    async with story.event("etcd's leader killed", NOTHING):
        killed = await hosts.members.until_led()
        hosts.members.kill(killed)
        await hosts.members.until_led()
        hosts.members.start(killed)
        await hosts.until_etcd_serves()
        await hosts.until_leader()
        await hosts.until_whole()


async def etcd_is_away(hosts: Hosts, story: Story, name: str, away: AbstractContextManager[None]) -> None:
    """Have no coordinator lead for a while, because none reaches etcd."""
    async with story.event(name, NOTHING):
        with away:
            await trio.sleep(OUTAGE_SECONDS)
            assert hosts.leader() == ""
        await hosts.until_leader()
        await hosts.until_whole()


async def leader_is_killed(hosts: Hosts, story: Story) -> None:
    async with story.event("leading coordinator killed", NOTHING):
        first = await hosts.until_leader()
        hosts.coordinators.pop(first).kill()
        await hosts.until_leader(first)
        hosts.start_coordinator(first)
        await hosts.until_stands_by(first)
        await hosts.until_whole()


@each_round
async def test_a_new_leader_decides_about_an_actor_that_died_with_the_old_one(
    turn: int, hosts: Hosts, tmp_path: Path, record_property: Report
) -> None:
    async with told(hosts, tmp_path, next(_seeds), record_property) as story:
        async with story.event("leading coordinator and an actor killed at once", UNDECIDED):
            first, before = await hosts.until_leader(), await hosts.until_whole()
            hosts.coordinators.pop(first).kill()
            hosts.nodes["h3"].child.kill()
            await hosts.until_whole(version=before.version + 1)
            hosts.start_coordinator(first)
            await hosts.until_stands_by(first)
        async with story.event("leading coordinator paused, and an actor killed at once", UNDECIDED):
            first, before = await hosts.until_leader(), await hosts.until_whole()
            with stopped(hosts.coordinators[first].child):
                hosts.nodes["h4"].child.kill()
                await hosts.until_whole(version=before.version + 1)
            await hosts.until_resigned(first)


@each_round
async def test_hosts_that_are_cut_off_or_slow(
    turn: int, hosts: Hosts, tmp_path: Path, record_property: Report
) -> None:
    async with told(hosts, tmp_path, next(_seeds), record_property) as story:
        await hosts.lead_etcd_from(SPARE)
        async with story.event("host cut off", LOST):
            with hosts.cut_off("h3"):
                await hosts.until_whole("h3")
            await hosts.until_whole()
        async with story.event("two hosts cut off from each other", LOST):
            with hosts.lost(("h1", "h4"), ("h4", "h1")):
                await trio.sleep(5)
            await hosts.until_whole()
        others = [host for host in (*NODES, SPARE, APPS) if host != "h4"]
        async with story.event("host hears, and is not heard", LOST):
            with hosts.lost(*(("h4", other) for other in others)):
                await hosts.until_whole("h4")
            await hosts.until_whole()
        if LONG:
            # It may be alone in some shards by then, as it was heard to remove their backups.
            async with story.event("host is heard, and hears nothing, for three seconds", DEAF):
                with hosts.lost(*((other, "h4") for other in others)):
                    await trio.sleep(3)
                await hosts.until_whole()
        async with story.event("host 20 ms away", MOVED):
            hosts.network.slow("h4", SLOW_SECONDS)
            await trio.sleep(3)
            hosts.network.quicken("h4")
            await hosts.until_whole()
        await deciders_are_cut_off(hosts, story)


async def deciders_are_cut_off(hosts: Hosts, story: Story) -> None:
    """Cut off a host with whoever decides on it, too."""
    async with story.event("host of the leading coordinator cut off", UNDECIDED):
        first = await hosts.until_leader()
        with hosts.cut_off(first):
            await hosts.until_whole(first)
        await hosts.until_whole()
    async with story.event("host of the leading coordinator cut off from all but etcd", ALONE):
        first = await hosts.until_leader()
        with hosts.cut_off_but_for_etcd(first):
            # By then its own node may be alone in some shards, which come back with it.
            await hosts.until_leader(first)
        await hosts.until_whole()
    await hosts.lead_etcd_from("h3")
    async with story.event("host of etcd's leader cut off", UNDECIDED):
        with hosts.cut_off("h3"):
            await hosts.until_whole("h3")
        await hosts.until_etcd_serves()
        await hosts.until_whole()


@each_round
async def test_hosts_that_are_lost_added_and_drained(
    turn: int, hosts: Hosts, tmp_path: Path, record_property: Report
) -> None:
    async with told(hosts, tmp_path, next(_seeds), record_property) as story:
        await hosts.lead_etcd_from(SPARE)
        leader = await hosts.until_leader()
        first = next(host for host in ETCD if ZONES[host] == ZONES[leader])
        async with story.event("host lost", LOST):
            hosts.lose(first)
            await hosts.until_whole()
        async with story.event("another host lost", LOST):
            second = hosts.standby()
            hosts.lose(second)
            await hosts.until_whole()
        async with story.event("both hosts back", MOVED):
            await hosts.bring_back(first, second)
        async with story.event("zone of two hosts lost", LOST):
            lost = [host for host in NODES if ZONES[host] == ZONES[hosts.standby()]]
            for host in lost:
                hosts.network.cut(host)
            for host in lost:
                hosts.lose(host)
            await hosts.until_whole(crowded=True)
        async with story.event("zone back", MOVED):
            await hosts.bring_back(*lost)
        async with story.event("host added", MOVED):
            hosts.start_node(SPARE)
            await hosts.until_whole()
        async with story.event("host drained", MOVED):
            node = hosts.nodes.pop(SPARE)
            node.process.terminate()
            await until(lambda: node.process.poll() is not None, 30)
            await hosts.until_whole()
        assert node.process.returncode == 0
