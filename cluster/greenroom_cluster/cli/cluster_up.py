"""`greenroom up`: a local cluster in the foreground."""

import math
import signal
import sys
import time

import msgspec
import structlog
import trio

from greenroom_cluster.config import LocalClusterSettings
from greenroom_cluster.runtime.host_memory import warn_if_short
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.tasks import open_tasks

_log = structlog.get_logger("greenroom.up")


async def run_up(settings: LocalClusterSettings, json: bool) -> None:  # noqa: FBT001  a command's option
    """Run a cluster until SIGINT or SIGTERM, printing one line when it is complete."""
    began = time.monotonic()
    progress = _ignore if json else _print_progress
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_tasks() as tasks:

            async def stop_on_signal() -> None:
                number = await anext(signals)
                _log.info("cluster_stops", signal=signal.Signals(number).name)
                progress(_farewell(settings))
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop_on_signal)
            async with open_local_cluster(settings, on_progress=progress) as cluster:
                warn_if_short(len(cluster.nodes) * settings.node.actors, cluster.memory_bytes_max)
                _print_ready(cluster, settings, time.monotonic() - began, json=json)
                await trio.sleep(math.inf)
    progress("stopped")


def _farewell(settings: LocalClusterSettings) -> str:
    kept = "was temporary, and goes too" if settings.data_dir is None else f"stays in {settings.data_dir}"
    return f"stopping. All sessions end: only the nodes' memory holds them. The cluster map {kept}"


def _ignore(_: str) -> None:
    """Print no progress: with --json, stderr carries logs only."""


def _print_progress(what: str) -> None:
    sys.stderr.write(f"greenroom: {what}\n")
    sys.stderr.flush()


def _print_ready(
    cluster: LocalCluster, settings: LocalClusterSettings, seconds: float, *, json: bool
) -> None:
    if json:
        line = msgspec.json.encode(
            {
                "event": "ready",
                "url": cluster.url,
                "seeds": cluster.seeds,
                "nodes": {name: cluster.node_pid(name) for name in cluster.nodes},
                "coordinator": cluster.coordinator_address,
                "memory_bytes_max": cluster.memory_bytes_max,
                "seconds": round(seconds, 3),
            }
        ).decode()
    else:
        line = (
            f"ready in {seconds:.1f} s: {len(cluster.nodes)} nodes of {settings.node.actors} actors, "
            f"{settings.shards} shards of {settings.replicas} replicas, up to "
            f"{cluster.memory_bytes_max >> 20} MiB of memory an actor. Connect to {cluster.url}"
        )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
