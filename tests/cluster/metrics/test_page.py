"""The page of metrics tells what the code tells. GREENROOM_UPDATE_PAGES=1 draws its tables anew."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from greenroom.observing.names import METRICS
from greenroom.observing.names import Metric as MetricOfApps
from greenroom_cluster.metrics.names import SECTIONS, Metric

PAGE = Path(__file__).parents[3] / "docs/metrics.md"


def table(metrics: Iterable[Metric | MetricOfApps]) -> Iterator[str]:
    yield "\n| metric | kind | labels | tells |\n|---|---|---|---|\n"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        condition = f" ({metric.condition})" if metric.condition else ""
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{condition} |\n"


def of_servers() -> str:
    return "".join(f"\n### {heading}\n{''.join(table(metrics))}" for heading, metrics in SECTIONS.items())


def of_apps() -> str:
    return "".join(table(METRICS))


@pytest.mark.parametrize(("what", "drawn"), [("metrics", of_servers()), ("metrics of apps", of_apps())])
def test_the_page_tells_every_metric(what: str, drawn: str) -> None:
    begin, end = f"<!-- {what} -->\n", f"<!-- end of {what} -->\n"
    before, _, rest = PAGE.read_text().partition(begin)
    shown, _, after = rest.partition(end)
    if os.environ.get("GREENROOM_UPDATE_PAGES"):
        PAGE.write_text(before + begin + drawn + end + after)
    else:
        assert shown == drawn
