"""The maps that running nodes serve, for a coordinator with an older map or none."""

from collections.abc import Sequence

import structlog

from greenroom.cluster_map import ClusterMap
from greenroom.errors import UnavailableError, UsageError
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.proving import Keys
from greenroom_cluster.runtime.tasks import open_tasks

_log = structlog.get_logger("greenroom.coordinator")


async def maps_in_use(addresses: Sequence[str], cluster: str, credentials: Keys | None) -> list[ClusterMap]:
    """Return the maps of these nodes, and of all nodes in those maps that answer.

    So a newer map is found even if the nodes named lost the coordinator early and have older ones.
    Raises UsageError if one of `addresses` does not give its map.
    """
    maps, silent = await _ask(addresses, cluster, credentials)
    if silent:
        raise UsageError(
            f"--adopt-from (GREENROOM_ADOPT_FROM): {'; '.join(silent)}. Its map may be the newest: make it "
            "answer, or leave it out if it no longer runs"
        )
    others = {node.address for each in maps for node in each.nodes.values()} - set(addresses)
    found, silent = await _ask(sorted(others), cluster, credentials)
    for reason in silent:
        _log.warning("coordinator_warning", message=f"a node of the map to adopt gave no map: {reason}")
    kept = [each for each in found if not any(each.is_foreign_to(known) for known in maps)]
    if len(kept) < len(found):
        told = f"{len(found) - len(kept)} nodes of the map to adopt serve another cluster of this name now"
        _log.warning("coordinator_warning", message=told)
    return maps + kept


async def maps_of(addresses: Sequence[str], cluster: str, credentials: Keys | None) -> list[ClusterMap]:
    """Return the maps of those nodes that answer."""
    maps, _ = await _ask(addresses, cluster, credentials)
    return maps


async def _ask(
    addresses: Sequence[str], cluster: str, credentials: Keys | None
) -> tuple[list[ClusterMap], list[str]]:
    maps: list[ClusterMap] = []
    silent: list[str] = []

    async def ask(address: str) -> None:
        try:
            maps.append(await fetch_map([address], cluster, credentials=credentials))
        except (UnavailableError, UsageError) as error:
            silent.append(str(error))

    async with open_tasks() as nursery:
        for address in addresses:
            nursery.start_soon(ask, address)
    return maps, silent
