"""`greenroom up`: a local cluster in the foreground."""

import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog
import trio

from greenroom.errors import GreenroomError
from greenroom_cluster.backups.keeping import KeptSessions
from greenroom_cluster.backups.new_file import NotWrittenError
from greenroom_cluster.backups.taking import Taken
from greenroom_cluster.exits import end_in_order
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LossyFile
from greenroom_cluster.runtime.actor_disk import refuse_kept
from greenroom_cluster.runtime.host_memory import warn_if_short
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.proving import secrets_in
from greenroom_cluster.runtime.tasks import open_tasks

_START_SECONDS = 60.0
_SAME_SIGNAL_SECONDS = 1.0
_DISK_SECONDS = 45.0
"""How long a full disk holds up an end: less than the 90 s after which systemd kills."""
_DISK_PAUSE_SECONDS = 5.0

_log = structlog.get_logger("greenroom.up")


class SessionsLostError(GreenroomError):
    """The sessions could not be kept over an orderly end."""


async def run_up(settings: LocalClusterSettings, json: bool) -> None:  # noqa: FBT001  a command's option
    """Run a cluster until a signal or the end of its terminal, printing one line when it is complete."""
    await _Run(settings, json=json).run()


class _Run:
    """One run of a cluster: what it is to be, how far it has come, and how it ends."""

    def __init__(self, settings: LocalClusterSettings, *, json: bool) -> None:
        self._settings = settings
        self._json = json
        self._began = time.monotonic()
        self._progress = _ignore if json else _print_progress
        self._durable = settings.node.actor.durability != "none"
        names = {f"n{number}" for number in range(1, settings.nodes + 1)}
        refuse_kept(settings.data_dir, settings.node.actor.durability, settings.node.actors, nodes=names)
        self._kept = None if settings.data_dir is None else KeptSessions(settings.data_dir, settings.cluster)
        self._cluster: LocalCluster | None = None
        self._brings_back = self._stops = False
        self._complete = trio.Event()
        self._lost = ""

    async def run(self) -> None:
        """Run it."""
        sessions = None if self._kept is None else self._kept.check()
        if sessions is not None:
            # The coordinator knows of no backup and warns that the sessions are lost.
            self._progress(
                f"sessions kept by the last run: {sessions}. They come back once every shard is there; "
                "until then the log says that shards were started empty"
            )
        with trio.open_signal_receiver(*_endings()) as signals:
            async with open_tasks() as tasks:
                tasks.start_soon(self._stop_on_signal, signals, tasks)
                await self._serve()
        self._progress("stopped")
        if self._lost:
            raise SessionsLostError(f"the sessions are lost: {self._lost}")

    async def _serve(self) -> None:
        settings = self._settings
        # Sessions on disk are never given up unasked: a large log takes minutes to read, and an operator
        # may have to say meanwhile that a directory is gone.
        wait_seconds = math.inf if self._durable else _START_SECONDS
        async with open_local_cluster(
            settings, wait_seconds=wait_seconds, on_progress=self._progress
        ) as cluster:
            warn_if_short(len(cluster.nodes) * settings.node.actors, cluster.memory_bytes_max)
            if self._kept is not None:
                self._brings_back = True
                await _bring_back(self._kept, cluster, self._progress)
                self._brings_back = False
            self._cluster = cluster
            self._complete.set()
            if not self._stops:
                _print_ready(cluster, settings, time.monotonic() - self._began, json=self._json)
            await trio.sleep(math.inf)

    async def _stop_on_signal(self, signals: AsyncIterator[int], tasks: trio.Nursery) -> None:
        number = await anext(signals)
        self._stops = True
        end_in_order()
        _log.info("cluster_stops", signal=signal.Signals(number).name)
        tasks.start_soon(self._stop_at_once, signals, tasks)
        if self._brings_back:
            # Ended now, some would be lost; brought back once more, users would be who have logged out since.
            self._progress("stopping once the kept sessions are back; another signal ends it without")
            await self._complete.wait()
        if self._kept is None or self._cluster is None or self._durable:
            self._progress(_farewell(self._settings))
        else:
            self._progress("stopping. Sessions are written down first; another signal ends it without")
            self._lost = await _keep(self._kept, self._cluster, self._progress)
        tasks.cancel_scope.cancel()

    async def _stop_at_once(self, signals: AsyncIterator[int], tasks: trio.Nursery) -> None:
        first = trio.current_time()
        async for _ in signals:
            # A terminal and a runner such as uv may both bring the same Ctrl-C.
            if trio.current_time() > first + _SAME_SIGNAL_SECONDS:
                break
        tasks.cancel_scope.cancel()


def _endings() -> list[signal.Signals]:
    """Return the signals that end a run: the end of its terminal is one, unless `nohup` has it ignored."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


async def _keep(kept: KeptSessions, cluster: LocalCluster, progress: Callable[[str], None]) -> str:
    """Write down the sessions of a cluster that stops; return why they cannot be kept, or nothing."""
    try:
        taken = await _written(kept, cluster, progress)
    except GreenroomError as error:
        _log.error("sessions_lost", reason=str(error))
        return str(error)
    except BaseException:
        # Cancelled, or a group of that.
        _log.error("sessions_lost", reason="another signal")
        progress("the sessions are lost: another signal came before all were written down")
        raise
    _log.info("sessions_kept", sessions=taken.sessions, size_bytes=taken.size_bytes)
    progress(f"sessions kept for the next start: {taken.sessions}")
    return ""


async def _written(kept: KeptSessions, cluster: LocalCluster, progress: Callable[[str], None]) -> Taken:
    """Write down the sessions. If the disk is full, they are still in memory: try again for a while."""
    deadline = trio.current_time() + _DISK_SECONDS
    while True:
        try:
            return await kept.keep(cluster.seeds, lambda _: None, cluster.credentials)
        except NotWrittenError as error:
            left = deadline - trio.current_time()
            if left <= 0:
                raise
            _log.warning("sessions_not_written", reason=str(error), left_seconds=round(left))
            progress(f"{error}; the sessions are in memory, and are written again for {left:.0f} s")
            await trio.sleep(_DISK_PAUSE_SECONDS)


async def _bring_back(kept: KeptSessions, cluster: LocalCluster, progress: Callable[[str], None]) -> None:
    try:
        restored = await kept.bring_back(cluster.seeds, cluster.client_options)
    except GreenroomError:
        raise
    except BaseException:
        # Cancelled, or a group of that.
        progress(f"the start is ended early. {kept.advice}")
        raise
    if restored is not None:
        _log.info("sessions_restored", created=restored.created, expired=restored.expired)
        progress(f"sessions brought back: {restored.created}, expired: {restored.expired}")


def _farewell(settings: LocalClusterSettings) -> str:
    if settings.node.actor.durability != "none":
        return f"stopping. The sessions stay on disk in {settings.data_dir}, where the next start finds them"
    stays = f"stays in {settings.etcd.store or settings.data_dir}"
    if settings.data_dir is None:
        return (
            "stopping. All sessions end: only the nodes' memory holds them; --data-dir keeps them over a "
            f"Ctrl-C. The cluster map {stays if settings.etcd.store else 'was temporary, and goes too'}"
        )
    return f"stopping before the cluster was complete. The cluster map {stays}"


def _ignore(_: str) -> None:
    """Print no progress: with --json, stderr carries logs only."""


def _print_progress(what: str) -> None:
    told = LossyFile(sys.stderr)
    told.write(f"greenroom: {what}\n")
    told.flush()


def _what_it_asks_for(cluster: LocalCluster) -> str:
    """Return what a browser must show there."""
    if cluster.dashboard_url.startswith("https:"):
        return ", with the certificate of an operator or observer, or an observer's token"
    if secrets_in(cluster.credentials) is None:
        return ""
    return ", which asks for what `greenroom http-token` prints"


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
                "http": cluster.http_urls,
                "dashboard": cluster.dashboard_url,
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
        if urls := cluster.http_urls:
            told = ", ".join(f"{url} ({name})" for name, url in urls.items())
            line += f"\nfor operators, /livez, /readyz and more: {told}"
            line += f"\ndashboard: {cluster.dashboard_url}{_what_it_asks_for(cluster)}"
        elif cluster.http_missing:
            line += f"\nno HTTP ports, no dashboard: {cluster.http_missing}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
