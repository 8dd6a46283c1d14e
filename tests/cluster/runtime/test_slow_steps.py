"""Steps are measured where they run: long ones are charged, slow ones are logged."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from greenroom import wire
from greenroom_cluster.runtime import driver as driver_module
from greenroom_cluster.runtime import slow_steps
from greenroom_cluster.runtime.driver import Driver
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.sockets import charged_as
from greenroom_cluster.shard.inputs import ClientRequests, HostInput, PeerMessages, Tick
from greenroom_cluster.shard.messages import Prepare, ShardRecords
from tests.cluster.runtime.test_driver import ScriptedCore
from tests.cluster.shard.probe import create, record

MS = 1_000_000
SECRET = b"what a user stores"


@pytest.fixture(autouse=True)
def fresh_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_steps, "_limited_log", LimitedLog(structlog.get_logger()))


def step(monkeypatch: pytest.MonkeyPatch, event: HostInput, spent_ns: int) -> tuple[ScriptedCore, Any]:
    """Step a driver whose clock shows that this took so long; return its core and what was logged."""
    core = ScriptedCore()
    times = iter((10**12, 10**12 + spent_ns))
    monkeypatch.setattr(driver_module, "now_ns", lambda: next(times))
    with capture_logs() as logs:
        Driver(core).step(event)
    assert next(times, None) is None, "the clock is read twice a step"
    return core, logs


def test_a_short_step_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    core, logs = step(monkeypatch, Tick(), MS)
    assert core.spending == []
    assert logs == []


def test_a_long_step_is_told_to_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    core, logs = step(monkeypatch, Tick(), 5 * MS)
    assert core.spending == [5 * MS]
    assert logs == []


def test_a_slow_step_is_logged_with_kinds_sizes_and_whose_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = [create(1, data=SECRET), create(2, data=SECRET), wire.Inspect(3)]
    _, (log,) = step(monkeypatch, ClientRequests(1, b"c" * 16, requests, "10.0.0.7"), 150 * MS)
    assert log["event"] == "slow_step"
    assert log["log_level"] == "warning"
    assert log["input"] == "ClientRequests"
    assert log["milliseconds"] == 150
    assert log["kinds"] == {"Create": 2, "Inspect": 1}
    assert 150 < log["bytes"] < 400
    assert log["sender"] == "10.0.0.7"
    assert log["charged"] == ["somebody"]
    assert "stores" not in str(log)


def test_a_slow_step_for_a_peer_names_its_incarnation(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Prepare(1, (ShardRecords(0, 1, 0, (record(1, create(1, data=SECRET)),)),))
    _, (log,) = step(monkeypatch, PeerMessages(b"p" * 16, [message]), 400 * MS)
    assert log["sender"] == (b"p" * 16).hex()
    assert log["kinds"] == {"Prepare": 1}
    assert "stores" not in str(log)


def test_slow_steps_do_not_fill_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [log for _ in range(30) for log in step(monkeypatch, Tick(), 200 * MS)[1]]
    assert 5 <= len(lines) <= 10


@pytest.mark.parametrize(
    ("remote", "charged"),
    [
        ("10.0.0.7:5000", "10.0.0.7"),
        ("[2001:db8::1]:5000", "2001:db8::1"),
        ("127.0.0.1:5000", "127.0.0.1:5000#3"),
        ("[::1]:5000", "[::1]:5000#3"),
        ("[::ffff:127.0.0.1]:5000", "[::ffff:127.0.0.1]:5000#3"),
        ("unknown", "unknown#3"),
    ],
)
def test_a_host_is_charged_and_on_the_loopback_a_connection(remote: str, charged: str) -> None:
    assert charged_as(remote, 3) == charged
