"""`greenroom coordinator`: the process that supervises the coordinator, which runs in a child.

A coordinator that dies is started again on the same address, and continues from the map on disk. On SIGHUP
both processes read their certificates anew.
"""

import os
import signal
from contextlib import ExitStack

import msgspec
import structlog
import trio

from greenroom.addresses import join_address, parse_address
from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ClusterMap
from greenroom_cluster.audit import Line
from greenroom_cluster.config import CoordinatorProcessSettings
from greenroom_cluster.coordination.genesis import ClusterOptions, begins_from_directories, starting_map
from greenroom_cluster.coordination.storage import MapStorage, refuse_kept_map
from greenroom_cluster.exits import end_in_order
from greenroom_cluster.http.coordinator_view import CoordinatorView
from greenroom_cluster.http.port import HttpPort, HttpSettings
from greenroom_cluster.keeper import SupervisionSettings
from greenroom_cluster.runtime.adoption import maps_in_use
from greenroom_cluster.runtime.auditing import tell
from greenroom_cluster.runtime.coordinator import CoordinatorServerSettings, run_coordinator
from greenroom_cluster.runtime.ports import check_plaintext, check_port, reserved_port
from greenroom_cluster.runtime.proving import Keys, keys_of
from greenroom_cluster.runtime.reloading import Terminal
from greenroom_cluster.runtime.supervision import (
    ChildProcess,
    ChildSpec,
    Supervisor,
    open_supervisor,
)
from greenroom_cluster.runtime.tasks import open_tasks

_log = structlog.get_logger("greenroom.coordinator")


def _prepare(
    settings: CoordinatorProcessSettings, host: str, port: int, adopted: list[ClusterMap]
) -> ClusterOptions:
    """Do what belongs to the first start only; raise UsageError for what no restart can cure."""
    check_port(host, port)
    if settings.etcd.store:
        refuse_kept_map(settings.directory, settings.cluster)
        return settings.options()
    storage = MapStorage(settings.directory)
    try:
        stored = storage.load()
        options = settings.options()
        if begins_from_directories(stored, options):
            _log.info("directories_awaited", data_dir=str(settings.directory))
            return options
        first = starting_map(stored, options, adopted, identity=os.urandom(CLUSTER_IDENTITY_BYTES))
        if first is not stored:
            # The first map, or the one from which the operator wants to continue.
            storage.vouch()
            storage.save(first)
        if settings.new_lineage:
            _log.info("lineage_begun", lineage=first.lineage, version=first.version, adopted=len(adopted))
            about = {"lineage": first.lineage, "version": first.version}
            tell([Line(f"uid {os.getuid()}", "this host", "new-lineage", "done", about)])
    finally:
        storage.close()
    return ClusterOptions(
        first.cluster,
        first.shard_count,
        first.replicas,
        recover_alone_seconds=settings.recover_alone_after,
    )


async def run_coordinator_process(settings: CoordinatorProcessSettings) -> None:
    """Supervise a coordinator until SIGTERM or SIGINT.

    Raises UsageError for impossible settings, MapDamagedError, StorageFailedError, RestartLimitError.
    """
    settings.check()
    host, port = parse_address(settings.listen, any_port=True)
    if settings.tls.files() is None and not settings.insecure_plaintext_beyond_loopback:
        check_plaintext(host, "--listen")
    with ExitStack() as held:
        if not port:
            # Held as long as this process runs: its child is to have it again after a restart.
            port = held.enter_context(reserved_port(host)).getsockname()[1]
        await _run_at(host, port, settings)


async def _run_at(host: str, port: int, settings: CoordinatorProcessSettings) -> None:
    credentials = keys_of(settings.tls, settings.proof, settings.cluster, "coordinator", host)
    adopted = await maps_in_use(settings.adopted_addresses(), settings.cluster, credentials)
    options = _prepare(settings, host, port, adopted)
    if settings.etcd.store:
        # Only here: httpx is an extra.
        from greenroom_cluster.runtime.etcd_reach import check_kept

        await check_kept(settings.etcd, options)
    child = CoordinatorServerSettings(
        options=options,
        data_dir=str(settings.directory),
        host=host,
        port=port,
        tls=settings.tls,
        insecure=settings.insecure_plaintext_beyond_loopback,
        proof=settings.proof,
        etcd=settings.etcd if settings.etcd.store else None,
    )

    coordinator = _Coordinator(join_address(host, port), credentials)
    http = None if not settings.http else coordinator.http_port(settings)
    terminal = Terminal()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with (
            open_supervisor(
                "coordinator",
                restarts=settings.process.restarts,
                on_ready=coordinator.on_ready,
                on_exit=coordinator.on_exit,
                settings=SupervisionSettings(hang_seconds=settings.process.hang_seconds),
                log_settings=settings.process.logs,
            ) as supervisor,
            open_tasks() as services,
        ):
            coordinator.supervisor = supervisor
            if http is not None:
                services.start_soon(http.run)
            supervisor.start_child(
                ChildSpec("coordinator", run_coordinator, lambda _: msgspec.structs.replace(child))
            )
            async for number in signals:
                if number == signal.SIGHUP and not terminal.is_gone():
                    supervisor.reload()
                    continue
                end_in_order()
                _log.info("coordinator_stops", signal=signal.Signals(number).name)
                services.cancel_scope.cancel()
                break


class _Coordinator:
    """The coordinator's process, as its supervisor sees it."""

    def __init__(self, address: str, keys: Keys | None) -> None:
        self._address = address
        self._keys = keys
        self.supervisor: Supervisor | None = None

    def on_ready(self, process: ChildProcess) -> None:
        """Tell that it serves."""
        _log.info("coordinator_serves", address=self._address, pid=process.pid)

    def on_exit(self, process: ChildProcess) -> None:
        """Do nothing: it is started again."""
        del process

    def http_port(self, settings: CoordinatorProcessSettings) -> HttpPort:
        """Return the HTTP port of this process. Raises UsageError."""
        view = CoordinatorView(self._address, settings.cluster, self._keys, lambda: self.supervisor)
        insecure = settings.insecure_plaintext_beyond_loopback
        return HttpPort(
            HttpSettings(settings.cluster, settings.http, settings.tls, self._keys, insecure=insecure), view
        )
