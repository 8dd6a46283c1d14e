"""The facade imports without the async libraries and the cluster; trio is loaded only where trio runs."""

import subprocess
import sys

SCRIPT = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"trio", "tractor", "anyio", "greenroom_cluster", "hypothesis", "pytest"}

class WithoutThem(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutThem
import greenroom
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_all_public_names_import_without_any_other_package() -> None:
    run("for name in greenroom.__all__: getattr(greenroom, name)")


def test_absent_packages_are_absent() -> None:
    run(
        "for name in ABSENT:\n"
        "    try: __import__(name)\n"
        "    except ImportError: continue\n"
        "    raise SystemExit(name)"
    )


def test_memory_store_needs_no_network_code() -> None:
    run("greenroom.store_from_url('memory://'); assert 'greenroom.cluster_store' not in sys.modules")


def test_contract_runs_without_pytest_and_trio() -> None:
    run(
        "from greenroom.testing import CHECKS, available_libraries, run_check\n"
        "assert available_libraries() == ('asyncio',)\n"
        "assert run_check(CHECKS[0], greenroom.MemoryStore)"
    )
