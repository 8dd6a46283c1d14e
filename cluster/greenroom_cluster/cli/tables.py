"""Tables of the state of a cluster, of a user's sessions, and of what actors keep on disk."""

from collections.abc import Sequence

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from greenroom.sessions import SessionInfo
from greenroom_cluster.cli.layout import WIDTH, add_row, new_table, wide_console
from greenroom_cluster.cluster_status import ActorStatus, ClusterStatus, ShardStatus
from greenroom_cluster.comparison import Rates
from greenroom_cluster.disk.inspecting import KeptDirectory
from greenroom_cluster.escaping import printable
from greenroom_cluster.shard_states import (
    ALONE,
    FULL,
    JOINING,
    SAME_NODE,
    SAME_ZONE,
    STATE_NAMES,
    SUSPENDED,
    UNAVAILABLE,
)

_STYLES = {
    FULL: "green",
    SAME_NODE: "red",
    SAME_ZONE: "red",
    JOINING: "yellow",
    ALONE: "red",
    UNAVAILABLE: "bold red",
    SUSPENDED: "bold red",
    "up": "green",
}
_INCARNATION_DIGITS = 8
UNBOUNDED_BYTES = 1 << 60


def print_status(
    status: ClusterStatus, *, shards: bool = False, near: bool = False, console: Console | None = None
) -> None:
    """Print nodes and actors on stdout, what shards wait for, and, if asked, all shards, and near caches."""
    console = console or wide_console()
    _print_heading(console, status)
    _print_table(console, _node_table(status))
    actors = new_table(
        *("actor", "incarnation", "address", "state", "pid"),
        *("primaries", "backups", "sessions", "used", "free", "of", "evicted"),
    )
    for actor in status.actors:
        add_row(
            actors,
            actor.slot,
            actor.incarnation[:_INCARNATION_DIGITS],
            actor.address,
            _actor_state(actor),
            str(actor.pid or "-"),
            str(actor.primaries),
            str(actor.backups),
            str(actor.sessions),
            *(_mebibytes(size) for size in (actor.used_bytes, actor.free_bytes, actor.memory_bytes_max)),
            str(actor.evicted),
        )
    _print_table(console, actors)
    if len(status.namespaces) > 1 or any(each.sessions_max for each in status.namespaces):
        _print_table(console, _namespace_table(status))
    if near:
        _print_table(console, _near_table(status))
    if shards:
        _print_table(console, _shard_table(status, near=near))


def _print_heading(console: Console, status: ClusterStatus) -> None:
    """Print how the cluster is, and what to do."""
    console.print(
        Text.assemble(
            "cluster ",
            (printable(status.cluster), "bold"),
            f", map {status.lineage}.{status.version}, "
            f"{len(status.shards)} shards of {status.replicas} replicas: {status.counts()}; "
            f"coordinator {status.coordinator.state}{_leads(status)}",
        )
    )
    for warning in status.warnings():
        console.print(Text(printable(warning), style="bold red"))


def print_top(console: Console, status: ClusterStatus, rates: Rates | None, changes: Sequence[str]) -> None:
    """Print how busy and how whole a cluster is, its busiest actors first, and the newest changes."""
    _print_heading(console, status)
    sessions = sum(shard.sessions for shard in status.shards)
    stored = _mebibytes(sum(shard.stored_bytes for shard in status.shards))
    more = _rate(None if rates is None else rates.sessions_per_second, signed=True)
    records = _rate(None if rates is None else rates.records_per_second)
    nodes = ", ".join(f"{printable(node.name)} {node.state}" for node in status.nodes)
    console.print(
        Text(f"{sessions} sessions ({more}/s), {stored} stored, {records} records/s; nodes: {nodes}")
    )
    # The first are those that a narrow terminal shows.
    table = new_table(
        *("actor", "state", "records/s", "sessions", "primaries", "backups"),
        *("used", "free", "of", "pid", "evicted", "held near"),
    )
    by_slot: dict[str, float] = {} if rates is None else rates.by_slot
    for actor in sorted(status.actors, key=lambda each: (-by_slot.get(each.slot, 0.0), each.slot)):
        add_row(
            table,
            actor.slot,
            _actor_state(actor),
            _rate(None if rates is None else by_slot.get(actor.slot, 0.0)),
            str(actor.sessions),
            str(actor.primaries),
            str(actor.backups),
            *(_mebibytes(size) for size in (actor.used_bytes, actor.free_bytes, actor.memory_bytes_max)),
            str(actor.pid or "-"),
            str(actor.evicted),
            str(actor.near.held),
        )
    _print_table(console, table)
    if changes:
        console.print(Text("what has changed", style="bold"))
    for change in changes:
        console.print(Text(printable(change)))


def print_missed(console: Console, reason: str) -> None:
    """Print why nothing is known of the cluster just now."""
    console.print(Text(f"no node answers: {printable(reason)}", style="bold red"))


def print_sessions(user_id: str, namespace: str, sessions: Sequence[SessionInfo], *, more: bool) -> None:
    """Print on stdout which sessions a user has."""
    console = wide_console()
    count = f"{len(sessions)}{' or more' if more else ''}"
    told = f"user {user_id} has {count} session{'' if len(sessions) == 1 else 's'} in namespace {namespace}"
    console.print(Text(printable(told)))
    if sessions:
        table = new_table("handle", "since", "until", "device")
        for each in sessions:
            moments = (f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in (each.created, each.expires))
            add_row(table, each.handle, *moments, each.label or "-")
        console.print(table)


def _rate(per_second: float | None, *, signed: bool = False) -> str:
    return "-" if per_second is None else f"{per_second:{'+' if signed else ''}.1f}"


def _leads(status: ClusterStatus) -> str:
    leads = status.coordinator.leads()
    return f": {printable(leads)}" if leads else ""


def _print_table(console: Console, table: Table) -> None:
    """Print a table; of one that is wider than the console, what fits of each line."""
    lines = console.render_lines(table, console.options.update(width=WIDTH), pad=False)
    for line in lines:
        length = min(Segment.get_line_length(line), console.width)
        console.print(Segments([*Segment.adjust_line_length(line, length), Segment.line()]))


def _node_table(status: ClusterStatus) -> Table:
    zoned = any(node.zone for node in status.nodes)
    table = new_table("node", *(("zone",) if zoned else ()), "address", "state", "actors")
    for node in status.nodes:
        zone = (node.zone or "-",) if zoned else ()
        add_row(table, node.name, *zone, node.address, _state(node.state), str(node.actors))
    return table


def _namespace_table(status: ClusterStatus) -> Table:
    table = new_table("namespace", "sessions", "of", "stored", "of")
    for each in status.namespaces:
        add_row(
            table,
            each.namespace,
            str(each.sessions),
            str(each.sessions_max or "-"),
            _mebibytes(each.stored_bytes),
            _mebibytes(each.stored_bytes_max) if each.stored_bytes_max else "-",
        )
    return table


def _near_table(status: ClusterStatus) -> Table:
    """Return what each actor holds for clients that keep sessions, and what came of that."""
    table = new_table(
        *("actor", "held", "granted", "refused", "hits", "invalidations"),
        *("waits", "lapsed", "waited s", "longest s"),
    )
    for actor in status.actors:
        near = actor.near
        add_row(
            table,
            actor.slot,
            *map(str, (near.held, near.granted, near.refused, near.hits, near.invalidations)),
            *map(str, (near.waits, near.waits_lapsed)),
            f"{near.waited_seconds:.3f}",
            f"{near.waited_seconds_max:.3f}",
        )
    return table


def _shard_table(status: ClusterStatus, *, near: bool) -> Table:
    table = new_table(
        *("shard", "epoch", "primary", "backup", "sessions", *(("held",) if near else ())),
        *("replication", "waits for", "copy refused"),
    )
    awaited = status.coordinator.awaited()
    for shard in status.shards:
        add_row(
            table,
            str(shard.shard),
            str(shard.epoch),
            shard.primary or "-",
            ", ".join(shard.backups) or "-",
            str(shard.sessions),
            *((str(shard.held),) if near else ()),
            _state(shard.state),
            ", ".join([*_awaited(shard), *filter(None, [awaited.get(shard.shard)])]),
            shard.join_refusal,
        )
    return table


def _awaited(shard: ShardStatus) -> list[str]:
    """Return what a shard waits for, and up to which record the directories that are there hold it."""
    directories = [f"directory of {slot}" for slot in shard.missing_directories]
    kept = [f"{each.slot} has up to {each.epoch}/{each.sequence}" for each in shard.kept]
    return [*shard.waits_for, *directories, *kept]


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB" if size < UNBOUNDED_BYTES else "-"


def _state(state: str) -> Text:
    return Text(printable(STATE_NAMES.get(state, state)), style=_STYLES.get(state, "yellow"))


def _actor_state(actor: ActorStatus) -> Text:
    return _state(actor.state if actor.reachable or actor.state != "up" else "no answer")


def print_directories(directories: Sequence[KeptDirectory]) -> None:
    """Print on stdout what actors keep on disk."""
    console = wide_console()
    for each in directories:
        console.print(
            Text.assemble(
                (printable(each.path), "bold"),
                f": directory {each.directory or '-'} of cluster {printable(each.cluster) or '-'}, "
                f"mark {each.mark}, {_mebibytes(each.stored_bytes)}",
                (", in use by a process" if each.in_use else ""),
            )
        )
        if each.damage:
            console.print(Text(printable(f"damaged: {each.damage}"), style="bold red"))
        console.print(Text(printable(f"at a start {each.start()}"), style="bold red" if each.moved else ""))
        if each.shards:
            table = new_table(
                *("shard", "epoch", "members", "snapshot at", "records", "last record", "committed"),
                *("open proposal", "size"),
            )
            for shard in each.shards:
                add_row(
                    table,
                    str(shard.shard),
                    str(shard.epoch),
                    ", ".join(member[:_INCARNATION_DIGITS] for member in shard.members),
                    str(shard.snapshot_sequence),
                    str(shard.records),
                    f"{shard.last_epoch}/{shard.last_sequence}",
                    str(shard.committed),
                    shard.proposal or "-",
                    _mebibytes(shard.size_bytes),
                )
            console.print(table)
