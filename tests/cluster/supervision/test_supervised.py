"""The inside of a supervised process, without the process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog.testing
import trio

from greenroom_cluster.runtime import supervised
from greenroom_cluster.runtime.documents import encode_settings
from tests.cluster.supervision import children

pytestmark = pytest.mark.trio


class _LeftError(Exception):
    """In place of the end of the process."""


class _Stream:
    """A supervisor that asks for nothing."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(data)

    async def __aiter__(self) -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield


@pytest.mark.parametrize("refuses", [True, False])
async def test_only_a_failure_is_logged_and_not_an_operators_mistake(
    monkeypatch: pytest.MonkeyPatch, *, refuses: bool
) -> None:
    """The supervisor tells the operator in one line; a traceback would bury what is to be done."""
    statuses: list[int] = []

    def leave(status: int) -> None:
        statuses.append(status)
        raise _LeftError

    monkeypatch.setattr(supervised, "leave", leave)
    work = children.refuse_to_start if refuses else children.end_at_once
    stream = _Stream()
    settings = encode_settings(children.ServeSettings(b""))
    kind = supervised.reference_to(children.ServeSettings)
    with trio.fail_after(5), structlog.testing.capture_logs() as logged, pytest.raises(_LeftError):
        await supervised.run_supervised(stream, supervised.reference_to(work), kind, settings, 1.0)
    assert statuses == [supervised.EXIT_FAILED]
    assert [line["event"] for line in logged] == ([] if refuses else ["process_failed"])
    assert ({"refused": "the marker is impossible"} in stream.sent) is refuses
