"""What holds for every test.

Secrets of clusters on loopback are made in a directory of this run, where all its processes find them, and
not in that of the user.

Searches have no deadline: what else the machine does is no fault of the code. Every run of trio has strict
exception groups, which trio 0.25 makes the only ones: a nursery that wraps a single error shows here already.

Tests that fork this process come first. Once uvloop has made a loop, a fork closes two descriptors of the
child by their numbers and opens others (findings/uvloop_fork.sh), whatever these numbers are by then.
"""

import atexit
import os
import shutil
import tempfile
from functools import partial

import pytest
import trio
from hypothesis import settings

settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")

trio.run = partial(trio.run, strict_exception_groups=True)

os.environ["XDG_RUNTIME_DIR"] = runtime = tempfile.mkdtemp(prefix="greenroom-secrets-")
_pid = os.getpid()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


@atexit.register
def _remove_secrets() -> None:
    if os.getpid() == _pid:  # and not in a fork
        shutil.rmtree(runtime, ignore_errors=True)
