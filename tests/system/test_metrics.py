"""The metrics of a real cluster: all that the page lists, and true."""

import os
import signal
import ssl
import time
from pathlib import Path

import pytest
import trio

from greenroom import new_session_id, store_from_url
from greenroom_cluster.config import ActorOptions, NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.metrics.names import METRICS
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from tests.system.metrics import metric_of, metrics_in, scraped, total
from tests.system.stage import ANY, SETTINGS, SharedCluster, session, stopped

pytestmark = [pytest.mark.system, pytest.mark.trio]

DEPLOY = Path(__file__).parents[2] / "deploy"


async def test_a_cluster_tells_every_metric_that_is_listed(small_cluster: SharedCluster) -> None:
    """And no other; each with the labels that are listed."""
    await small_cluster.healthy()
    samples = await scraped(small_cluster.cluster)
    given = {metric_of(sample.name) for sample in samples}
    conditional = {name for name, metric in METRICS.items() if metric.condition}
    assert given - conditional == METRICS.keys() - conditional
    for sample in samples:
        metric = METRICS[metric_of(sample.name)]
        assert sample.labels.keys() - {"le"} == {"process", *metric.labels}, sample.name
    processes = {sample.labels["process"] for sample in samples}
    assert processes == {"coordinator", "coordinator/supervisor", "n1", "n2", "n1/0", "n1/1", "n2/0", "n2/1"}


async def test_what_only_some_clusters_tell(tmp_path: Path) -> None:
    """With TLS and on disk, by the certificate of an operator."""
    settings = LocalClusterSettings(
        nodes=2,
        shards=4,
        listen=ANY,
        coordinator_listen=ANY,
        data_dir=tmp_path,
        tls=True,
        node=NodeOptions(actors=1, actor=ActorOptions(durability="interval")),
        process=SETTINGS.process,
    )
    async with open_local_cluster(settings) as cluster:
        context = operators(cluster)
        samples = await scraped(cluster, verify=context)
        given = {metric_of(sample.name) for sample in samples}
        assert given >= METRICS.keys() - {"greenroom_connections_refused_total"}
        async with store_from_url(cluster.url) as store:
            await store.create(session(new_session_id()))
        samples = await scraped(cluster, verify=context)
    for name in ("log_bytes", "free_bytes", "sync_seconds_count"):
        assert total(samples, f"greenroom_disk_{name}") > 0, name
    ends = [each.value for each in samples if each.name == "greenroom_certificate_end_timestamp_seconds"]
    assert len(ends) == 3
    assert all(0 < end - time.time() < 40 * 86_400 for end in ends)


def operators(cluster: LocalCluster) -> ssl.SSLContext:
    """Return what an operator of a cluster with its own authority connects by."""
    files = cluster._files("operator", "up")
    context = ssl.create_default_context(cafile=files["tls_ca"])
    context.check_hostname = False  # they name no host
    context.load_cert_chain(files["tls_cert"], files["tls_key"])
    return context


async def test_what_is_counted_is_what_was_done(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    before = await scraped(small_cluster.cluster)
    ids = [new_session_id() for _ in range(40)]
    async with store_from_url(small_cluster.url) as store:
        for each in ids:
            await store.create(session(each, name="alice-in-the-data"))
        for each in ids[:25]:
            assert await store.get(each) is not None
        assert await store.get(new_session_id()) is None
        after = await scraped(small_cluster.cluster)
        for each in ids:
            await store.delete(each)

    def more(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("greenroom_requests_total", kind="create") >= 40
    assert more("greenroom_requests_total", kind="get") >= 26
    assert more("greenroom_replies_total", outcome="written") >= 40
    assert more("greenroom_replies_total", outcome="session") >= 25
    assert more("greenroom_replies_total", outcome="missing") >= 1
    assert more("greenroom_sessions", role="primary") == 40
    assert more("greenroom_stored_bytes", role="primary") > 40 * 50
    assert more("greenroom_replication_seconds_count") > 0
    assert more("greenroom_replication_batch_records_sum") >= 40
    assert more("greenroom_step_seconds_count") > 0
    assert total(after, "greenroom_shards", state="whole") == small_cluster.settings.shards
    assert total(after, "greenroom_connections", role="client") >= 1
    assert total(after, "greenroom_actor_up") == total(after, "greenroom_actor_ready") == 4
    assert total(after, "greenroom_ready") == 3
    text = " ".join(str(sample.labels) for sample in after)
    assert "alice" not in text
    assert not [each for each in ids if each in text]


async def test_a_lost_actor_shows_in_the_metrics(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    victim = await small_cluster.busiest_primary()
    before = await scraped(small_cluster.cluster)
    os.kill(victim.pid, signal.SIGKILL)
    await small_cluster.healthy()
    with trio.fail_after(30):
        while True:
            after = await scraped(small_cluster.cluster)
            if total(after, "greenroom_actor_ready", process=victim.slot):
                break
    name, changes = "greenroom_restarts_total", "greenroom_epoch_changes_total"
    assert total(after, name, process=victim.slot) == total(before, name, process=victim.slot) + 1
    assert total(after, changes, reason="takeover") > total(before, changes, reason="takeover")


async def test_an_actor_that_hangs_hangs_no_scrape(small_cluster: SharedCluster) -> None:
    """It is told as one that does not answer, and all others as ever."""
    await small_cluster.healthy()
    victim = await small_cluster.busiest_primary()
    with stopped(victim.pid), trio.fail_after(6):
        samples = await scraped(small_cluster.cluster)
    assert total(samples, "greenroom_actor_up", process=victim.slot) == 0
    assert total(samples, "greenroom_actor_up") == 3
    assert total(samples, "greenroom_resident_memory_bytes", process=victim.slot) > 1 << 20
    assert not total(samples, "greenroom_step_seconds_count", process=victim.slot)
    await small_cluster.healthy()
    samples = await scraped(small_cluster.cluster)
    assert total(samples, "greenroom_actor_up", process=victim.slot) == 1


@pytest.mark.parametrize(
    "path", ["prometheus/alerts.yml", "prometheus/alerts.test.yml", "grafana/greenroom.json"]
)
async def test_dashboard_and_rules_name_what_a_cluster_tells(small_cluster: SharedCluster, path: str) -> None:
    await small_cluster.healthy()
    named = metrics_in(DEPLOY / path)
    assert len(named) > 3
    given = {metric_of(sample.name) for sample in await scraped(small_cluster.cluster)}
    conditional = {name for name, metric in METRICS.items() if metric.condition}
    assert named <= given | conditional
