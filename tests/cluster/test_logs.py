"""How the processes of a cluster write their logs."""

from typing import get_args

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
