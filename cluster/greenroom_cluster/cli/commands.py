"""The commands. Everything heavy is imported when a command needs it."""

import importlib.util
import sys
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from greenroom.errors import UsageError
from greenroom_cluster import config
from greenroom_cluster.cli import backups, certs, completion, directories, options, tokens, top, users
from greenroom_cluster.cli.asking import ask, keys_of, print_json, print_line, run
from greenroom_cluster.cli.removed import refuse_removed, warn_of_removed_variables
from greenroom_cluster.cli.settings import with_options_of
from greenroom_cluster.demo.settings import BROWSERS as DEMO_BROWSERS
from greenroom_cluster.demo.settings import SECONDS as DEMO_SECONDS
from greenroom_cluster.escaping import printable
from greenroom_cluster.exits import (
    EXIT_FAILED,
    MISSING,
    errors_told,
    fail,
)
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import COORDINATOR
from greenroom_cluster.proof_options import ProofOptions

_VALUE_ERRORS = {
    "Input should be a valid integer": "not a whole number.",
    "Input should be a valid number": "not a number.",
    "Input should be a valid boolean": "neither true nor false.",
}


class _Commands(TyperGroup):
    """Rewords complaints about values of options, which come from the library under typer."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own name of that class
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            for library_words, words in _VALUE_ERRORS.items():
                if error.message.startswith(library_words):
                    error.message = words
            raise


# Plain help: in a narrow terminal rich's tables cut off names of options and variables.
app = typer.Typer(
    name="greenroom",
    cls=_Commands,
    help="Server-side sessions that survive the loss of any process or machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Run the command line; errors that the user can fix are one line on stderr."""
    with errors_told():
        refuse_removed(sys.argv[1:])
        app(standalone_mode=True)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer passes the option's value
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"greenroom {version('greenroom-cluster')}\n")
        raise typer.Exit


@app.callback()
def greenroom(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Server-side sessions that survive the loss of any process or machine."""
    del version


def _need(library: str, status: int = EXIT_FAILED) -> None:
    """Report what is missing before any process is started: it would only be restarted in vain."""
    if importlib.util.find_spec(library) is None:
        fail(MISSING[library], status)


@app.command()
@with_options_of(LocalClusterSettings)
def up(settings: LocalClusterSettings, *, json: options.Json = False) -> None:
    """Run a whole cluster on this machine until Ctrl-C."""
    warn_of_removed_variables()
    _need("tractor")
    from greenroom_cluster.cli.cluster_up import run_up
    from greenroom_cluster.runtime.starting import open_starter_of_members

    settings.check()
    with open_starter_of_members("up"):
        run(run_up, settings, json, logs=settings.process.logs, writer="up")


@app.command()
@with_options_of(config.CoordinatorProcessSettings)
def coordinator(settings: config.CoordinatorProcessSettings) -> None:
    """Run the coordinator, which keeps the cluster map."""
    warn_of_removed_variables()
    from greenroom_cluster.runtime.coordination_process import run_coordinator_process
    from greenroom_cluster.runtime.starting import COORDINATION, open_starter_of_children

    with open_starter_of_children("coordinator", COORDINATION):
        run(run_coordinator_process, settings, logs=settings.process.logs, writer=COORDINATOR)


@app.command(short_help="Run one node: its actors, and the clients' address.")
@with_options_of(config.NodeSettings)
def node(settings: config.NodeSettings) -> None:
    """Run one node: its actors, and the address that clients connect to. SIGTERM hands over first."""
    warn_of_removed_variables()
    settings.check()
    from greenroom_cluster.runtime.node_process import run_node
    from greenroom_cluster.runtime.starting import NODE, open_starter_of_children

    with open_starter_of_children(settings.name, NODE):
        run(run_node, settings, logs=settings.process.logs, writer=settings.name)


def _inspect(access: config.AccessOptions, connect: str, cluster: str, *, json: bool) -> Any:
    from greenroom_cluster.inspection import inspect_cluster

    return ask(inspect_cluster, connect, cluster, access=access, json=json, failed={"healthy": False})


@app.command(short_help="Show nodes, actors and shards.")
@with_options_of(config.AccessOptions)
def status(
    access: config.AccessOptions,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    shards: Annotated[
        bool, typer.Option("--shards", help="Show every shard too.", envvar="GREENROOM_STATUS_SHARDS")
    ] = False,
    near: Annotated[
        bool,
        typer.Option("--near", help="Show what clients keep too.", envvar="GREENROOM_STATUS_NEAR"),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look again and again, until Ctrl-C.", envvar="GREENROOM_STATUS_WATCH"),
    ] = False,
    interval: options.Interval = options.INTERVAL_SECONDS,
    count: options.Count = 0,
    json: options.Json = False,
) -> None:
    """Show nodes and actors, how many shards are in which state, and what they wait for."""
    if watch:
        top.watch_status(access, connect, cluster, interval, count, shards=shards, near=near, json=json)
        return
    found = _inspect(access, connect, cluster, json=json)
    if json:
        from greenroom_cluster.status_document import status_document

        print_json(status_document(found))
        return
    from greenroom_cluster.cli.tables import print_status

    print_status(found, shards=shards, near=near)


@app.command(short_help="Exit with 0 only if every shard has all its replicas, and they stand apart.")
@with_options_of(config.AccessOptions)
def health(
    access: config.AccessOptions,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    nodes: Annotated[
        int,
        typer.Option(
            help="Require this many nodes that are up with actors.", envvar="GREENROOM_HEALTH_NODES"
        ),
    ] = 0,
    json: options.Json = False,
) -> None:
    """Exit with 0 only if every shard has all its replicas, not all on one node, nor in one of several zones.

    Exit with 1 if not, and with 3 if no node answers. Shards serve while the coordinator is away, so that is
    reported and changes no exit code.
    """
    found = _inspect(access, connect, cluster, json=json)
    healthy = found.healthy and found.nodes_up >= nodes
    if json:
        from greenroom_cluster.status_document import health_document

        print_json(health_document(found, healthy=healthy))
    else:
        lines = [f"{'healthy' if healthy else 'not healthy'}: {found.counts()}"]
        if found.nodes_up < nodes:
            lines.append(f"{found.nodes_up} of {nodes} nodes are up with actors")
        if leads := found.coordinator.leads():
            lines.append(f"coordinator {found.coordinator.state}: {printable(leads)}")
        lines += [printable(warning) for warning in found.warnings()]
        sys.stdout.write("\n".join(lines) + "\n")
    if not healthy:
        raise typer.Exit(EXIT_FAILED)


_Coordinator = Annotated[
    str,
    typer.Option(
        help="Address of the coordinator, or of several, with commas.", envvar="GREENROOM_COORDINATOR"
    ),
]


@app.command("forget-node", short_help="Declare a node and its sessions gone for good.")
@with_options_of(config.AccessOptions)
def forget_node(
    access: config.AccessOptions,
    name: Annotated[str, typer.Argument(help="The node that is gone for good.")],
    coordinator: _Coordinator = config.COORDINATOR_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
) -> None:
    """Declare a node gone for good, with the sessions that only it held, in memory or on disk.

    Prints what becomes of the shards that have no other member left.
    """
    from greenroom_cluster.orders import forget_node_at

    config.check_addresses("--coordinator", coordinator)
    told = run(
        partial(forget_node_at, credentials=keys_of(access, cluster, "operator")), coordinator, cluster, name
    )
    for line in (f"node {name} is forgotten", *told):
        print_line(printable(line))


@app.command("declare-dead", short_help="Declare that no process of a silent node runs any more.")
@with_options_of(config.AccessOptions)
def declare_dead(
    access: config.AccessOptions,
    name: Annotated[str, typer.Argument(help="The node whose host is off, or booted since.")],
    coordinator: _Coordinator = config.COORDINATOR_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
) -> None:
    """Declare that no process of a silent node runs any more; what is in its directories still counts.

    Shards go on without what only its processes held in memory. Prints what becomes of the shards that have
    no other member left.
    """
    from greenroom_cluster.orders import declare_dead_at

    config.check_addresses("--coordinator", coordinator)
    told = run(
        partial(declare_dead_at, credentials=keys_of(access, cluster, "operator")), coordinator, cluster, name
    )
    for line in (f"the processes of node {name} count as dead", *told):
        print_line(printable(line))


@app.command("drop-record", short_help="Let a suspended shard go on without one record.")
@with_options_of(config.AccessOptions)
def drop_record(
    access: config.AccessOptions,
    shard: Annotated[int, typer.Argument(help="The number of the suspended shard.")],
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
) -> None:
    """Drop the record that ended a shard's primary, so that the shard serves again."""
    from greenroom_cluster.inspection import drop_record_at

    record = ask(drop_record_at, connect, cluster, shard, access=access, role="operator")
    sys.stdout.write(
        f"shard {shard} goes on without record {record.epoch}/{record.sequence}, "
        f"a {record.kind} of {record.size_bytes} bytes\n"
    )


@app.command("http-token", short_help="Print the token that HTTP ports ask for on loopback.")
@with_options_of(ProofOptions)
def http_token(proof: ProofOptions, *, cluster: options.Cluster = config.CLUSTER) -> None:
    """Print the token by which HTTP ports without TLS show the state of the cluster, for a scraper's file."""
    secrets = proof.secrets(cluster)
    if secrets is None:
        raise UsageError("with --loopback-proof off (GREENROOM_LOOPBACK_PROOF) HTTP ports ask for no token")
    print_line(secrets.http_token())


users.add_commands(app)
top.add_commands(app)
completion.add_commands(app)
backups.add_commands(app)
directories.add_commands(app)
certs.add_commands(app)
tokens.add_commands(app)


@app.command(short_help="Run the demo: a shop, shoppers, kills, every cart checked.")
def demo(
    *,
    seconds: Annotated[
        float, typer.Option(help="How long the shoppers shop.", envvar="GREENROOM_DEMO_SECONDS")
    ] = DEMO_SECONDS,
    browsers: Annotated[
        int, typer.Option(help="How many shoppers.", envvar="GREENROOM_DEMO_BROWSERS")
    ] = DEMO_BROWSERS,
    seed: Annotated[int, typer.Option(help="What they do and buy.", envvar="GREENROOM_DEMO_SEED")] = 0,
    durability: Annotated[
        config.Durability,
        typer.Option(
            help="Keep the sessions on disk as `greenroom up` does, and kill everything at once too.",
            envvar="GREENROOM_DEMO_DURABILITY",
        ),
    ] = "none",
    store: Annotated[
        str,
        typer.Option(
            help="Keep the map in etcd, etcd://host:2379, and kill the coordinator that leads too.",
            envvar="GREENROOM_DEMO_STORE",
            show_default=False,
        ),
    ] = "",
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Speak TLS, by certificates that are made for this run and end with it.",
            envvar="GREENROOM_DEMO_TLS",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Run the demo: a shop on three nodes, shoppers, kills, and every cart checked afterwards."""
    from greenroom_cluster.demo.command import EXIT_FAILED as DEMO_FAILED
    from greenroom_cluster.demo.command import run_demo

    for library in ("tractor", "cryptography") if tls else ("tractor",):
        _need(library, DEMO_FAILED)
    raise typer.Exit(
        run_demo(
            json=json,
            seconds=seconds,
            browsers=browsers,
            seed=seed,
            durability=durability,
            store=store,
            tls=tls,
        )
    )
