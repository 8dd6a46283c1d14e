"""Scrapes of real processes, for tests."""

import re
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.metrics.names import METRICS
from greenroom_cluster.runtime.local import LocalCluster

ACCEPT = "application/openmetrics-text; version=1.0.0"
NAMED = re.compile(r"\bgreenroom_[a-z0-9_]+")
_PARTS = re.compile(r"_(bucket|sum|count|created)$")


def parsed(text: str) -> list[Sample]:
    """Return all samples of a page, which must be OpenMetrics to the letter."""
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def metric_of(sample: str) -> str:
    """Return the metric that a sample belongs to."""
    return sample if sample in METRICS else _PARTS.sub("", sample)


async def scraped(cluster: LocalCluster, **client: Any) -> list[Sample]:
    """Return what all processes of a cluster tell."""
    found: list[Sample] = []
    headers = {"accept": ACCEPT, "authorization": f"Bearer {LoopbackSecrets('greenroom').http_token()}"}
    async with httpx.AsyncClient(trust_env=False, timeout=20, **client) as each:
        for url in cluster.http_urls.values():
            answer = await each.get(f"{url}/metrics", headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("application/openmetrics-text")
            found += parsed(answer.text)
    return found


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """Return the sum of a metric over all that have these labels."""
    return sum(
        sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
    )


def metrics_in(path: Path) -> set[str]:
    """Return the metrics that a file of rules or of a dashboard names."""
    return {metric_of(name) for name in NAMED.findall(path.read_text())}
