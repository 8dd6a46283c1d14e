"""The stand-in for a cluster that stores talk to."""

from collections.abc import Iterator

import pytest

from tests.store.client.fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(actors=2, shards=4) as fake:
        yield fake
