"""When a node misses its coordinator: at once if it had one, later if both were started together."""

from types import SimpleNamespace

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from greenroom_cluster.config import NodeSettings
from greenroom_cluster.runtime.node_process import Node


@pytest.mark.trio
@pytest.mark.parametrize(
    ("away_seconds", "had_map", "missed"),
    [(29.0, False, False), (31.0, False, True), (1.0, True, False), (3.0, True, True)],
)
async def test_a_node_misses_a_coordinator_it_never_had_only_later(
    away_seconds: float,
    had_map: bool,
    missed: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(NodeSettings(name="n1", listen="127.0.0.1:0"), patience_seconds=30.0)
    link = SimpleNamespace(away_seconds=away_seconds, map=object() if had_map else None, failure="refused")
    monkeypatch.setattr(node, "_link", link)
    with capture_logs() as logged, trio.move_on_after(1.0):
        await node._watch_coordinator()
    assert [line["event"] for line in logged] == ["coordinator_unreachable"] * missed
