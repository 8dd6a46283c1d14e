"""A cluster whose addresses others can reach, on a host that has such an address."""

import shutil
import subprocess
import sys

import pytest

from tests.system.beyond import SET_UP, TOLD

pytestmark = pytest.mark.system

APART = ["unshare", "--net", "--map-root-user", "sh", "-c"]


def _needs_a_network_apart() -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if subprocess.run([*APART, SET_UP], capture_output=True, check=False).returncode:
        pytest.skip("this host allows no network namespace of one's own")


def test_a_cluster_beyond_loopback_needs_the_one_option() -> None:
    """Without it coordinator, node and `up` refuse, and a store does; with it they serve each other."""
    _needs_a_network_apart()
    script = f"{SET_UP} && exec {sys.executable} -m tests.system.beyond"
    done = subprocess.run([*APART, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == TOLD
