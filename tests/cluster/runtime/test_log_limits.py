"""Lines that come again and again are held back, and counted."""

from typing import Any

import pytest

from greenroom_cluster.runtime import log_limits
from greenroom_cluster.runtime.log_limits import LimitedLog


class Lines:
    """A log that keeps what it was told, beside a clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.told: list[dict[str, Any]] = []
        monkeypatch.setattr(log_limits.time, "monotonic", lambda: self.now)

    def error(self, event: str, **fields: object) -> None:
        self.told.append({"event": event, **fields})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    return Lines(monkeypatch)


def test_one_line_said_again_is_told_once_a_minute(lines: Lines) -> None:
    log = LimitedLog(lines, repeat_seconds=60)
    for _ in range(240):
        log.error("refused", reason="older")
        lines.now += 0.5
    assert lines.told == [
        {"event": "refused", "reason": "older"},
        {"event": "refused", "reason": "older", "suppressed": 119},
    ]


def test_a_line_that_says_something_else_is_told_at_once(lines: Lines) -> None:
    """Each once a minute: of three members of etcd that are away each has its reason, in turns."""
    log = LimitedLog(lines, repeat_seconds=60)
    for _ in range(100):
        for reason in ("older", "foreign", "older"):
            log.error("refused", reason=reason)
        lines.now += 0.5
    assert [line["reason"] for line in lines.told] == ["older", "foreign"]
    lines.now += 60
    log.error("refused", reason="foreign")
    assert lines.told[-1] == {"event": "refused", "reason": "foreign", "suppressed": 298}


def test_so_many_lines_are_remembered_and_no_more(lines: Lines) -> None:
    log = LimitedLog(lines, lines=1000, repeat_seconds=60)
    for reason in range(log_limits._REMEMBERED_MAX + 1):
        log.error("refused", reason=reason)
    log.error("refused", reason=1)
    assert len(lines.told) == log_limits._REMEMBERED_MAX + 1
    log.error("refused", reason=0)
    assert lines.told[-1]["reason"] == 0, "it is forgotten, and counts as new"


def test_without_that_limit_lines_are_counted_by_the_second(lines: Lines) -> None:
    log = LimitedLog(lines, lines=2)
    for _ in range(3):
        log.error("refused", reason="older")
    lines.now += 1
    log.error("refused", reason="older")
    assert [line.get("suppressed") for line in lines.told] == [None, None, 1]
