"""A ClusterStore that is observed keeps the contract over real sockets, and tells of its near caches."""

from collections.abc import Iterator

import pytest

from greenroom import BaseSessionStore
from greenroom.cluster_store import ClusterStore
from greenroom.observing import ObservedStore
from greenroom.testing import StoreContract
from tests.store.client.fake_cluster import FakeCluster
from tests.store.observing.stage import Heard


class TestObservedClusterStore(StoreContract):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with FakeCluster(actors=3, shards=16) as cluster:
            cls.cluster = cluster
            yield

    def make_store(self) -> BaseSessionStore:
        return ObservedStore(ClusterStore(self.cluster.address), Heard())
