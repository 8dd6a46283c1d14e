"""Clusters for the system tests; see `tests.system.stage`.

One at a time is kept, from test to test and from module to module, until another kind is asked for.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest

from greenroom_cluster.config import NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from tests.system.stage import SETTINGS, SharedCluster, shared_cluster


class Clusters:
    """Keeps the cluster that was asked for last."""

    def __init__(self) -> None:
        self._settings: LocalClusterSettings | None = None
        self._open = ExitStack()
        self._cluster: SharedCluster | None = None

    def get(self, settings: LocalClusterSettings) -> SharedCluster:
        """Return a cluster that was started with these settings; a former one of another kind is ended."""
        if self._cluster is None or settings != self._settings:
            self.close()
            self._cluster = self._open.enter_context(shared_cluster(settings))
            self._settings = settings
        return self._cluster

    def close(self) -> None:
        """End the cluster."""
        self._cluster = None
        self._open.close()


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    """Every cluster that tests share."""
    kept = Clusters()
    yield kept
    kept.close()


@pytest.fixture
def cluster(clusters: Clusters) -> SharedCluster:
    """Three nodes with two actors each."""
    return clusters.get(SETTINGS)


@pytest.fixture
def small_cluster(clusters: Clusters) -> SharedCluster:
    """Two nodes with two actors each: every kind of port, and actors without a part in some shards."""
    return clusters.get(msgspec.structs.replace(SETTINGS, nodes=2))


@pytest.fixture
def slim_cluster(clusters: Clusters) -> SharedCluster:
    """Three nodes with an actor each, for tests that start and stop many nodes."""
    return clusters.get(msgspec.structs.replace(SETTINGS, node=NodeOptions(actors=1)))
