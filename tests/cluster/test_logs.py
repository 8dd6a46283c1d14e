"""How the processes of a cluster write their logs."""

import os
import re
from typing import get_args

import msgspec
import pytest
import structlog

from greenroom_cluster.logs import LogFormat, LogSettings, configure


def fail_with(_what_a_session_holds: bytes) -> None:
    raise RuntimeError("it went wrong")


@pytest.mark.parametrize("written", get_args(LogFormat))
def test_an_error_is_logged_without_the_values_at_hand(
    written: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may be session ids, and what users store."""
    configure(LogSettings(written))
    held = "-".join(("jane", "doe"))
    try:
        fail_with(held.encode())
    except RuntimeError:
        structlog.get_logger().exception("process_failed")
    logged = capsys.readouterr().err
    assert "it went wrong" in logged
    assert "fail_with" in logged, "where it failed"
    assert "jane-doe" not in logged


@pytest.mark.parametrize("written", get_args(LogFormat))
def test_a_line_tells_which_process_wrote_it(written: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what it tells of other processes."""
    configure(LogSettings(written), "a/0")
    structlog.get_logger().info("process_ready", process="b/1", pid=7)
    logged = capsys.readouterr().err
    if written == "json":
        line = msgspec.json.decode(logged)
        assert (line["from"], line["from_pid"], line["process"], line["pid"]) == (
            "a/0",
            os.getpid(),
            "b/1",
            7,
        )
    else:
        for part in ("from=a/0", f"from_pid={os.getpid()}", "process=b/1", "pid=7"):
            assert part in re.sub(r"\x1b\[[0-9;]*m", "", logged)


def test_a_command_that_only_asks_signs_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings("json"))
    structlog.get_logger().error("conversation_ended")
    assert "from" not in msgspec.json.decode(capsys.readouterr().err)
