"""What nobody observes costs nothing: no import, no instruction of bytecode more."""

import subprocess
import sys

import pytest

from tests.store.observing.counted_pages import Pages
from tests.store.observing.stage import Heard

BEFORE = {
    (3, 11): {"anonymous": 520, "unused": 976, "read": 1105, "changed": 2182},
    (3, 12): {"anonymous": 491, "unused": 904, "read": 1017, "changed": 1992},
    (3, 13): {"anonymous": 495, "unused": 905, "read": 1021, "changed": 1998},
}
"""The instructions that a page took before sessions could be observed (b90a3ac), by version of Python."""

LETTING_GO = 31
"""What a page takes since, lest its session and its visit wait for the collector of cycles."""

ABSENT = ("prometheus_client", "opentelemetry", "greenroom.observing")


@pytest.mark.skipif(sys.version_info[:2] not in BEFORE, reason="not counted before with this Python")
def test_a_page_that_nobody_observes_costs_no_more() -> None:
    before = BEFORE[sys.version_info[:2]]
    costs = Pages().costs()
    assert {name: costs[name] <= most + LETTING_GO for name, most in before.items()} == dict.fromkeys(
        before, True
    ), costs


def test_what_others_observe_costs_it_nothing_either() -> None:
    alone = Pages().costs()
    observed = Pages(Heard())
    assert Pages().costs() == alone
    # The counting would see what observing takes.
    assert all(count > alone[name] for name, count in observed.costs().items())


@pytest.mark.parametrize("module", ["greenroom", "greenroom.web", "greenroom.web.middleware"])
def test_nothing_of_it_is_imported_unless_asked_for(module: str) -> None:
    script = (
        f"import sys, greenroom, {module}\n"
        "greenroom.MemoryStore, greenroom.SqliteStore, greenroom.ClusterStore\n"
        f"found = [each for each in {ABSENT!r} if each in sys.modules]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["greenroom.observing", "greenroom.observing.sessions"])
def test_to_observe_needs_no_exporter(module: str) -> None:
    script = (
        "import sys\n"
        "sys.modules['prometheus_client'] = sys.modules['opentelemetry'] = None\n"
        f"import {module}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
