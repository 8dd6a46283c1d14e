"""ClusterStore keeps the contract of session stores on a real cluster, and agrees with the model."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from greenroom import BaseSessionStore, ClusterStore
from greenroom.testing import StoreContract
from greenroom.testing.stateful import StoreMachine
from tests.system.stage import SETTINGS, SharedCluster, shared_cluster

pytestmark = pytest.mark.system

SERIES = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[SharedCluster]:
    """Two nodes with an actor each; the classes below, which pytest makes itself, find it in `Address`."""
    with shared_cluster(msgspec.structs.replace(SETTINGS, nodes=2, actors=1)) as running:
        Address.seeds = ",".join(running.cluster.seeds)
        yield running


class Address:
    seeds = ""


class TestClusterStore(StoreContract):
    def make_store(self) -> BaseSessionStore:
        return ClusterStore(Address.seeds)


class ClusterMachine(StoreMachine):
    def make_store(self) -> BaseSessionStore:
        return ClusterStore(Address.seeds)


class TrioClusterMachine(ClusterMachine):
    library = "trio"


TestModelUnderAsyncio = ClusterMachine.TestCase
TestModelUnderAsyncio.settings = SERIES

TestModelUnderTrio = TrioClusterMachine.TestCase
TestModelUnderTrio.settings = SERIES
