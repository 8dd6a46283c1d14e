"""The state of a cluster as tables for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from greenroom_cluster.inspection import ALONE, FULL, JOINING, UNAVAILABLE, ClusterStatus

_STYLES = {FULL: "green", JOINING: "yellow", ALONE: "red", UNAVAILABLE: "bold red", "up": "green"}
_INCARNATION_DIGITS = 8


def print_status(status: ClusterStatus) -> None:
    """Print nodes, actors and shards on stdout."""
    console = Console()
    counts = ", ".join(f"{count} {state}" for state, count in status.states().items() if count)
    console.print(
        f"cluster [bold]{status.cluster}[/bold], map {status.lineage}.{status.version}, "
        f"{len(status.shards)} shards of {status.replicas} replicas: {counts}"
    )
    nodes = Table("node", "address", "state", "actors", title="Nodes", title_justify="left")
    for node in status.nodes:
        nodes.add_row(node.name, node.address, _state(node.state), str(node.actors))
    console.print(nodes)
    actors = Table(
        *("actor", "incarnation", "address", "state", "pid", "primaries", "backups", "sessions"),
        title="Actors",
        title_justify="left",
    )
    for actor in status.actors:
        actors.add_row(
            actor.slot,
            actor.incarnation[:_INCARNATION_DIGITS],
            actor.address,
            _state(actor.state if actor.reachable or actor.state != "up" else "no answer"),
            str(actor.pid),
            str(actor.primaries),
            str(actor.backups),
            str(actor.sessions),
        )
    console.print(actors)
    shards = Table(
        *("shard", "epoch", "primary", "backup", "sessions", "replication"),
        title="Shards",
        title_justify="left",
    )
    for shard in status.shards:
        shards.add_row(
            str(shard.shard),
            str(shard.epoch),
            shard.primary or "-",
            ", ".join(shard.backups) or "-",
            str(shard.sessions),
            _state(shard.state),
        )
    console.print(shards)


def _state(state: str) -> Text:
    return Text(state, style=_STYLES.get(state, "yellow"))
