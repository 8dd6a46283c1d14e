"""One cluster on hosts for all that happens to it."""

from collections.abc import Iterator

import pytest
import trio

from tests.hosts.network import Network
from tests.hosts.stage import APPS, NODES, SPARE, Hosts


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The cluster, whole at its beginning."""
    network = Network((*NODES, SPARE, APPS))
    try:
        hosts = Hosts(network, tmp_path_factory.mktemp("hosts"))
        try:
            with network.inside(APPS):
                trio.run(hosts.start)
            yield hosts
        finally:
            hosts.close()
    finally:
        network.close()


@pytest.fixture
def hosts(running: Hosts) -> Iterator[Hosts]:
    """The cluster, while the test itself is on the host of the apps."""
    with running.network.inside(APPS):
        yield running
