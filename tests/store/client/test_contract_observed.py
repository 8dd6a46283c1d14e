"""A ClusterStore that is observed keeps the contract over real sockets, and tells of its near caches."""

import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from greenroom import BaseSessionStore, SessionData, UsageError, new_session_id
from greenroom.cluster_store import ClusterStore
from greenroom.dialog.near import NearCounts
from greenroom.fields import utc_now
from greenroom.observing import ObservedStore
from greenroom.testing import StoreContract, available_libraries, library_named
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


@pytest.mark.parametrize("name", available_libraries())
def test_near_caches_are_told_as_the_client_counts_them(name: str) -> None:
    heard, library = Heard(), library_named(name)

    async def story(store: ObservedStore) -> None:
        one = SessionData(session_id=new_session_id(), expires=utc_now() + timedelta(hours=1))
        await store.create(one)
        while not store.near().hits:
            assert await store.get(one.session_id) is not None
        while store.at_hand(one.session_id) is None:
            assert await store.get(one.session_id) is not None
        (near,) = heard.near
        assert near() == store.near()
        assert (near().entries, near().hits >= 2, near().misses >= 1) == (1, True, True)
        await store.aclose()

    with FakeCluster(actors=1, shards=4, holds=True) as cluster:
        inner = ClusterStore(cluster.address, near_sessions=9, near_eager=True)
        library.run(lambda: story(ObservedStore(inner, heard)), 30)
    counted = heard.counted()
    assert counted.keys() == {("create", "done"), ("get", "done")}
    assert counted["get", "done"] >= 2


def test_what_only_a_cluster_offers_is_there() -> None:
    store = ObservedStore(ClusterStore("127.0.0.1:1"), Heard())
    assert store.near() == NearCounts()
    with pytest.raises(UsageError, match="nothing to reload"):
        store.reload_tls()
    with pytest.raises(AttributeError, match="'ClusterStore' object has no attribute 'nearly'"):
        store.nearly  # noqa: B018


def test_a_store_that_is_gone_is_not_kept_by_its_observer() -> None:
    heard = Heard()
    store: Any = ObservedStore(ClusterStore("127.0.0.1:1"), heard)
    gone = weakref.ref(store.inner)
    del store
    gc.collect()
    (near,) = heard.near
    assert (gone(), near()) == (None, NearCounts())
