"""ClusterStore keeps the contract of session stores, under asyncio and trio, over real sockets."""

from collections.abc import Iterator

import pytest

from greenroom.cluster_store import ClusterStore
from greenroom.testing import StoreContract
from tests.store.client.fake_cluster import FakeCluster


class TestClusterStore(StoreContract):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with FakeCluster(actors=3, shards=16) as cluster:
            cls.cluster = cluster
            yield

    def make_store(self) -> ClusterStore:
        return ClusterStore(self.cluster.address)
