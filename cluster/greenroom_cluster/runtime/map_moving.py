"""Moves the map of a stopped coordinator from its directory to etcd, where coordinators go on from it.

First the directory is marked, so that no coordinator goes on from the file whatever becomes of the rest;
then one transaction writes the map into etcd, if nothing is there. If its outcome is not known, moving again
tells.
"""

from pathlib import Path
from typing import NamedTuple

from greenroom.errors import GreenroomError, UnavailableError, UsageError
from greenroom_cluster.coordination.etcd import moving
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import EtcdAwayError, Transacted
from greenroom_cluster.coordination.storage import MapStorage
from greenroom_cluster.etcd_options import EtcdOptions


class Moved(NamedTuple):
    """Which map is in etcd now. `before`: it was there already."""

    cluster: str
    lineage: int
    version: int
    before: bool


async def move_map(directory: Path, options: EtcdOptions) -> Moved:
    """Move the map; moving it again is fine.

    Raises UsageError if there is none, or it cannot be moved now, UnavailableError if etcd does not answer,
    StorageFailedError, MapDamagedError, EtcdRefusedError, LayoutError.
    """
    options.check()
    if not (directory / "map.bin").exists():
        raise UsageError(f"{directory} holds no map: name the coordinator's --data-dir (GREENROOM_DATA_DIR)")
    with MapStorage(directory) as storage:
        return await _move(directory, storage, options)


async def _move(directory: Path, storage: MapStorage, options: EtcdOptions) -> Moved:
    cluster_map = storage.load(even_moved=True)
    moved_to = storage.moved_to
    if cluster_map is None or not any(cluster_map.epochs):
        raise UsageError(f"nothing was ever decided in the map in {directory}: start with --store at once")
    if moved_to not in ("", options.store):
        raise UsageError(f"the map in {directory} was moved to {moved_to}: name that with --store")
    if not storage.vouched and not moved_to:
        raise UsageError(
            f"nothing proves that {directory} holds the newest map, because its host, or its container, was "
            "started since: start its coordinator once more, wait until its log says `coordinator_proven`, "
            "stop it, and move the map then"
        )
    settings = options.settings(cluster_map.cluster)
    marks = storage.load_marks()
    async with EtcdClient(settings, options.tls(), password=options.password) as client:
        try:
            there = await client.transact((), moving.reading(settings.prefix))
        except EtcdAwayError as error:
            raise UnavailableError(f"nothing was moved: etcd does not answer ({error})") from None
        leader, keys = (each.response_range.kvs for each in there.responses)
        found, told = moving.found(settings.prefix, cluster_map, leader, keys)
        if found == "nothing":
            if not moved_to:
                storage.move(options.store)
            answer = await _written(client, moving.move(settings.prefix, cluster_map, marks))
            if answer.succeeded:
                return Moved(cluster_map.cluster, cluster_map.lineage, cluster_map.version, before=False)
            leader, keys = (each.response_range.kvs for each in answer.responses)
            found, told = moving.found(settings.prefix, cluster_map, leader, keys)
        if found == "other" or (found == "continued" and not moved_to):
            if not moved_to:
                storage.stay()
            raise UsageError(
                f"nothing was moved: etcd holds {told} of cluster {cluster_map.cluster!r} already. If that "
                "is of no use, stop its coordinators, and remove it by `etcdctl del --prefix "
                f"{settings.prefix}/`; or name another prefix with --store (GREENROOM_STORE)"
            )
        if not moved_to:
            storage.move(options.store)
        return Moved(cluster_map.cluster, cluster_map.lineage, cluster_map.version, before=True)


async def _written(client: EtcdClient, move: moving.Move) -> Transacted:
    try:
        return await client.transact(*move)
    except EtcdAwayError as error:
        raise GreenroomError(
            f"it is not known whether the map is in etcd ({error}): run this again once etcd answers. Until "
            "then no coordinator goes on from the file"
        ) from None
