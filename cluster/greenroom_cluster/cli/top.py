"""The commands that look at a cluster again and again: `top`, and `status --watch`."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import ask, print_json
from greenroom_cluster.cli.settings import with_options_of

if TYPE_CHECKING:
    from greenroom_cluster.cli.screen import Screen
    from greenroom_cluster.cluster_status import ClusterStatus
    from greenroom_cluster.comparison import Rates

_CHANGES_KEPT = 100


def add_commands(app: typer.Typer) -> None:
    """Add `top` to the command line."""
    app.command(short_help="Show live how busy and how whole a cluster is.")(top)


@with_options_of(config.AccessOptions)
def top(
    access: config.AccessOptions,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    interval: options.Interval = options.INTERVAL_SECONDS,
    count: options.Count = 0,
    json: options.Json = False,
) -> None:
    """Show live how busy and how whole a cluster is: actors, records a second, what has changed.

    The key q ends it, and Ctrl-C. Where there is no terminal, one look follows the other.
    """
    from greenroom_cluster.cli.screen import Screen

    screen = Screen.of_stdout()
    history = History()

    def seen(found: "ClusterStatus") -> None:
        history.note(found, time.monotonic_ns(), datetime.now(UTC))
        if json:
            print_json(history.document(found))
        else:
            from greenroom_cluster.cli.tables import print_top

            screen.show(lambda console: print_top(console, found, history.rates, history.told()))

    _watch(access, connect, cluster, interval, count, screen, seen, json=json)


def watch_status(
    access: config.AccessOptions,
    connect: str,
    cluster: str,
    interval: float,
    count: int,
    *,
    shards: bool,
    near: bool,
    json: bool,
) -> None:
    """Show what `greenroom status` does, again and again."""
    from greenroom_cluster.cli.screen import Screen

    screen = Screen.of_stdout()

    def seen(found: "ClusterStatus") -> None:
        if json:
            from greenroom_cluster.status_document import status_document

            print_json(status_document(found))
        else:
            from greenroom_cluster.cli.tables import print_status

            screen.show(lambda console: print_status(found, shards=shards, near=near, console=console))

    _watch(access, connect, cluster, interval, count, screen, seen, json=json)


def _watch(
    access: config.AccessOptions,
    connect: str,
    cluster: str,
    interval: float,
    count: int,
    screen: "Screen",
    seen: "Callable[[ClusterStatus], None]",
    *,
    json: bool,
) -> None:
    from greenroom_cluster.cli.watching import watch

    options.check_looks(interval, count)
    if json:
        screen.live = False

    def missed(reason: str) -> None:
        if json:
            print_json({"healthy": False, "error": reason})
        else:
            from greenroom_cluster.cli.tables import print_missed

            screen.show(lambda console: print_missed(console, reason))

    looks = (interval, count, screen, seen, missed)
    ask(watch, connect, cluster, *looks, access=access, json=json, failed={"healthy": False})


class History:
    """What was seen of a cluster: the newest state, how fast it changes, and what has happened."""

    def __init__(self) -> None:
        self._before: tuple[ClusterStatus, int] | None = None
        self._changes: deque[tuple[datetime, str]] = deque(maxlen=_CHANGES_KEPT)
        self._newest: list[str] = []
        self._time = ""
        self.rates: Rates | None = None

    def note(self, found: "ClusterStatus", now_ns: int, at: datetime) -> None:
        """Take in another look."""
        from greenroom_cluster.comparison import changes, rates

        self._time = at.isoformat(timespec="seconds")
        if self._before is not None:
            before, before_ns = self._before
            self.rates = rates(before, found, (now_ns - before_ns) / 1e9)
            self._newest = changes(before, found)
            self._changes.extendleft((at, change) for change in self._newest)
        self._before = found, now_ns

    def told(self) -> list[str]:
        """Return what has happened, the newest first."""
        return [f"{at:%H:%M:%S} {change}" for at, change in self._changes]

    def document(self, found: "ClusterStatus") -> dict[str, Any]:
        """Return the newest look for machines; rates are null in the first."""
        rates = self.rates
        return {
            "time": self._time,
            "cluster": found.cluster,
            "healthy": found.healthy,
            "states": found.states(),
            "nodes_up": found.nodes_up,
            "coordinator": found.coordinator.state,
            "sessions": sum(shard.sessions for shard in found.shards),
            "stored_bytes": sum(shard.stored_bytes for shard in found.shards),
            "records_per_second": None if rates is None else round(rates.records_per_second, 1),
            "sessions_per_second": None if rates is None else round(rates.sessions_per_second, 1),
            "actors": [
                {
                    "slot": actor.slot,
                    "state": actor.state,
                    "reachable": actor.reachable,
                    "pid": actor.pid,
                    "primaries": actor.primaries,
                    "backups": actor.backups,
                    "sessions": actor.sessions,
                    "records_per_second": None
                    if rates is None
                    else round(rates.by_slot.get(actor.slot, 0.0), 1),
                    "used_bytes": actor.used_bytes,
                    "free_bytes": actor.free_bytes,
                    "memory_bytes_max": actor.memory_bytes_max,
                }
                for actor in found.actors
            ],
            "changes": self._newest,
            "warnings": found.warnings(),
        }
