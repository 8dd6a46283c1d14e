"""How a cluster starts: ratios of two trees, and one start of this one."""

import sys
from pathlib import Path

import pytest

from benchmarks.processes import Process
from benchmarks.servers.ports import until
from benchmarks.starts import Start, ratios, started

_ROOT = Path(__file__).parents[2]


def start(seconds: float, pss: float) -> Start:
    return Start(seconds=seconds, cpu_seconds=2 * seconds, processes=12, pss_mebibytes=pss)


def test_ratios_are_of_one_pair() -> None:
    found = ratios([(start(1.0, 50.0), start(2.0, 100.0)), (start(3.0, 80.0), start(4.0, 100.0))])
    assert found["seconds"] == pytest.approx([0.5, 0.75])
    assert found["cpu_seconds"] == pytest.approx([0.5, 0.75])
    assert found["pss_mebibytes"] == pytest.approx([0.5, 0.8])


@pytest.mark.system
@pytest.mark.timeout(180)
def test_a_start_is_measured() -> None:
    found = started(_ROOT)
    assert found.processes > 12  # and its starters
    # Twelve processes that share nothing take twice as much.
    assert found.pss_mebibytes < 300
    assert 0 < found.cpu_seconds < 60


def test_whoever_waits_hears_of_the_end_of_a_server_at_once() -> None:
    command = [sys.executable, "-c", "import sys; print('one'); sys.exit('no port is left')"]
    process = Process(command)
    try:
        with pytest.raises(RuntimeError, match=r"ended before it serves: no port is left"):
            until(lambda: False, "it serves", 30.0, processes=[process])
    finally:
        process.stop()
