"""ClusterStore keeps the contract of session stores on a real cluster, and agrees with the model."""

import pytest
from hypothesis import HealthCheck, settings

from greenroom import BaseSessionStore, ClusterStore
from greenroom.testing import StoreContract
from greenroom.testing.stateful import StoreMachine
from tests.system.stage import SharedCluster

pytestmark = pytest.mark.system

SERIES = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _address(small_cluster: SharedCluster) -> None:
    """Tell the classes below, which others instantiate, where the cluster is."""
    Address.seeds = ",".join(small_cluster.cluster.seeds)


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
