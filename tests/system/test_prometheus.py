"""A real Prometheus (Debian's package `prometheus`) scrapes a cluster, and evaluates the rules of deploy/."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.runtime.ports import free_port
from tests.system.stage import SharedCluster

RULES = Path(__file__).parents[2] / "deploy/prometheus"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed (apt-get install prometheus)",
)
pytestmark = [pytest.mark.system, needs_prometheus]


def config(cluster: SharedCluster, folder: Path) -> Path:
    token = folder / "token"
    token.write_text(LoopbackSecrets(cluster.settings.cluster).http_token())
    targets = [url.partition("://")[2] for url in cluster.cluster.http_urls.values()]
    path = folder / "prometheus.yml"
    path.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES / "alerts.yml")],
                "scrape_configs": [
                    {
                        "job_name": "greenroom",
                        "authorization": {"credentials_file": str(token)},
                        "static_configs": [{"targets": targets}],
                    }
                ],
            }
        )
    )
    return path


@asynccontextmanager
async def running(path: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus around the body; yield a client of it."""
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                yield client
        finally:
            process.kill()
            nursery.cancel_scope.cancel()


async def asked(client: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    """Return what Prometheus answers, once it runs."""
    while True:
        try:
            return (await client.get(f"/api/v1/{path}", params=parameters)).raise_for_status().json()["data"]
        except (httpx.TransportError, httpx.HTTPStatusError):
            await trio.lowlevel.checkpoint()


@pytest.mark.trio
async def test_prometheus_scrapes_a_cluster_and_its_rules_hold(
    small_cluster: SharedCluster, tmp_path: Path
) -> None:
    await small_cluster.healthy()
    async with running(config(small_cluster, tmp_path), tmp_path) as client:
        with trio.fail_after(60):
            while True:
                targets = (await asked(client, "targets"))["activeTargets"]
                if targets and all(each["health"] == "up" for each in targets):
                    break
            assert len(targets) == 3
            while True:
                found = await asked(client, "query", query='sum(greenroom_shards{state="whole"})')
                if found["result"] and float(found["result"][0]["value"][1]) == small_cluster.settings.shards:
                    break
            while True:
                groups = (await asked(client, "rules"))["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                if rules and all(rule["health"] == "ok" for rule in rules):
                    break
                assert not [rule for rule in rules if rule["health"] == "err"]
    assert len(rules) == (RULES / "alerts.yml").read_text().count("- alert:")
    firing = [each for each in rules if each["state"] == "firing"]
    critical = [each["name"] for each in firing if each["labels"]["severity"] == "critical"]
    assert critical == []


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    check("check", "rules", "alerts.yml")


def test_the_rules_say_what_they_should_of_some_clusters() -> None:
    check("test", "rules", "alerts.test.yml")


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(RULES / name, tmp_path)
    (tmp_path / "greenroom.token").write_text("x")
    check("check", "config", "prometheus.yml", folder=tmp_path)


def check(*arguments: str, folder: Path = RULES) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
