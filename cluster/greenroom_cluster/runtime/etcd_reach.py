"""Whether a map can be kept in etcd, asked before anything is started, and the removal of one."""

from contextlib import suppress

import trio

from greenroom.errors import UnavailableError, UsageError
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import Delete, EtcdAwayError, Range, end_of
from greenroom_cluster.coordination.etcd.layout import map_of, places
from greenroom_cluster.coordination.genesis import ClusterOptions, starting_map
from greenroom_cluster.etcd_options import EtcdOptions

_ANSWER_SECONDS = 5.0
_LEASE_SECONDS = 4.0
"""A coordinator that was killed a moment ago leads for as long as its lease."""
_AGAIN_SECONDS = 0.2

INSTALL = (
    "Start it first; on one host, `apt-get install etcd-server` (or another build of etcd 3.4 or later) and "
    "`etcd --data-dir etcd-data`, which listens on 127.0.0.1:2379. Or leave --store (GREENROOM_STORE) out: "
    "the map is in a file then"
)


async def check_reach(options: EtcdOptions, cluster: str) -> None:
    """Return if etcd answers, and no coordinator of another run leads this cluster.

    Raises UnavailableError if etcd is away, UsageError if somebody leads, EtcdRefusedError.
    """
    settings = options.settings(cluster)
    async with EtcdClient(settings, options.tls(), password=options.password) as client:
        try:
            with trio.fail_after(_ANSWER_SECONDS):
                name = await _leader(client, settings.prefix)
        except EtcdAwayError as error:
            raise UnavailableError(f"no etcd answers at {options.store} ({error}). {INSTALL}") from None
        except trio.TooSlowError:
            raise UnavailableError(f"no etcd answers at {options.store}. {INSTALL}") from None
        deadline = trio.current_time() + _LEASE_SECONDS
        while name:
            if trio.current_time() > deadline:
                raise UsageError(
                    f"the coordinator at {name} leads cluster {cluster!r} in this etcd already: stop that "
                    "cluster, or give this one another --cluster (GREENROOM_CLUSTER)"
                )
            await trio.sleep(_AGAIN_SECONDS)
            name = await _leader(client, settings.prefix)


async def check_kept(options: EtcdOptions, cluster: ClusterOptions) -> None:
    """Raise UsageError if the options differ from the cluster that is kept; return if etcd is away.

    A coordinator would find out when it leads, long after whoever has started it looks away. Raises
    EtcdRefusedError, LayoutError.
    """
    settings = options.settings(cluster.cluster)
    maps = places(settings.prefix).maps
    async with EtcdClient(settings, options.tls(), password=options.password) as client:
        with suppress(EtcdAwayError), trio.move_on_after(_ANSWER_SECONDS):
            found = (await client.range(Range(maps, end_of(maps)))).kvs
            starting_map(
                map_of({each.key.removeprefix(maps).decode(): each.value for each in found}), cluster
            )


async def _leader(client: EtcdClient, prefix: str) -> str:
    found = (await client.range(Range(places(prefix).leader))).kvs
    return found[0].value.decode(errors="replace") if found else ""


async def forget_cluster(options: EtcdOptions, cluster: str) -> None:
    """Remove all that etcd keeps of a cluster whose coordinators have ended. Raises as the client does."""
    settings = options.settings(cluster)
    everything = f"{settings.prefix}/".encode()
    async with EtcdClient(settings, options.tls(), password=options.password) as client:
        await client.transact((), (Delete(everything, end_of(everything)),))
