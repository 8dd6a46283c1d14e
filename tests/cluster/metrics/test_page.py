"""The page of metrics tells what the code tells. GREENROOM_UPDATE_PAGES=1 draws its tables anew."""

import os
from collections.abc import Iterator
from pathlib import Path

from greenroom_cluster.metrics.names import SECTIONS

PAGE = Path(__file__).parents[3] / "docs/metrics.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- end of metrics -->\n"


def drawn() -> Iterator[str]:
    for heading, metrics in SECTIONS.items():
        yield f"\n### {heading}\n\n| metric | kind | labels | tells |\n|---|---|---|---|\n"
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            condition = f" ({metric.condition})" if metric.condition else ""
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{condition} |\n"


def test_the_page_tells_every_metric() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    if os.environ.get("GREENROOM_UPDATE_PAGES"):
        PAGE.write_text(before + BEGIN + "".join(drawn()) + END + after)
    else:
        assert shown == "".join(drawn())
