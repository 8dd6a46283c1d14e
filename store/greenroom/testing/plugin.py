"""The pytest plugin: a fixture `greenroom_cluster` that is a real cluster, for tests of apps on any Python.

>>> def test_cart_survives(greenroom_cluster):
...     app = create_app(sessions=greenroom_cluster.url)
...     ...
...     greenroom_cluster.kill_actor()
...     ...

It is registered by installing greenroom; nothing is started unless a test asks for the fixture. Options, each
also a line of pytest's configuration: `--greenroom-command` (`greenroom_command`) names the command where it
is neither beside this Python nor on the PATH, `--greenroom-nodes` (`greenroom_nodes`) says how many nodes.
Where the command is not installed, tests that need it are skipped, and say what to install; once the command
is named, its absence is an error.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from greenroom.testing.clusters import RunningCluster

NODES = 2
MISSING = (
    "the greenroom command is not installed: install the wheel of greenroom-cluster in an environment of its "
    "own, on Python 3.11 or 3.12, by the path of the wheel (its README says how), or name the command by "
    "--greenroom-command"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the options of the fixture."""
    group = parser.getgroup("greenroom", "clusters for tests")
    command = "the greenroom command, if it is neither beside this Python nor on the PATH"
    group.addoption("--greenroom-command", default=None, metavar="PATH", help=command)
    parser.addini("greenroom_command", command, default="")
    nodes = f"how many nodes the cluster of the fixture greenroom_cluster has (default {NODES})"
    group.addoption("--greenroom-nodes", default=None, type=int, metavar="NUMBER", help=nodes)
    parser.addini("greenroom_nodes", nodes, default=str(NODES))


@pytest.fixture(scope="session")
def greenroom_cluster(pytestconfig: pytest.Config) -> Iterator["RunningCluster"]:
    """A cluster that the whole test run shares; `greenroom_cluster.url` is the URL for a store."""
    # Imported here, so that test runs without this fixture do not pay for it.
    from greenroom.testing.clusters import find_command, running_cluster

    command = find_command(_option(pytestconfig, "greenroom_command"))
    if command is None:
        pytest.skip(MISSING)
    nodes = str(_option(pytestconfig, "greenroom_nodes"))
    if not nodes.isdecimal():
        raise pytest.UsageError(
            "greenroom_nodes (--greenroom-nodes) is how many nodes the cluster has, 1 or more"
        )
    with running_cluster(command, nodes=int(nodes)) as cluster:
        yield cluster


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(name)
    return config.getini(name) if given is None else given
