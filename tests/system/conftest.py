"""One cluster per module of system tests, whole at the beginning; see `tests.system.stage`."""

from collections.abc import Iterator

import pytest

from tests.system.stage import SharedCluster, shared_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[SharedCluster]:
    """A cluster of three nodes with two actors each, shared by the tests of a module."""
    with shared_cluster() as running:
        yield running
