"""The options that several commands share. Every option is a GREENROOM_* variable as well."""

from pathlib import Path
from typing import Annotated

import typer

from greenroom_cluster.coordination.genesis import REPLICAS_DEFAULT, SHARDS_DEFAULT
from greenroom_cluster.logs import LogFormat, LogLevel
from greenroom_cluster.shard.settings import Evicted

Cluster = Annotated[
    str,
    typer.Option(
        help="Name of the cluster; peers and clients must name the same.", envvar="GREENROOM_CLUSTER"
    ),
]
Actors = Annotated[int, typer.Option(help="Actor processes of each node.", envvar="GREENROOM_ACTORS")]
Shards = Annotated[
    int | None,
    typer.Option(
        help="Slices of the hash space, a power of two; set when the cluster is created.",
        envvar="GREENROOM_SHARDS",
        show_default=f"{SHARDS_DEFAULT} for a new cluster",
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        help="Copies of every shard; set when the cluster is created.",
        envvar="GREENROOM_REPLICAS",
        show_default=f"{REPLICAS_DEFAULT} for a new cluster",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Directory of the coordinator's cluster map.", envvar="GREENROOM_DATA_DIR"),
]
DrainSeconds = Annotated[
    float,
    typer.Option(help="How long a node that stops may take to hand over.", envvar="GREENROOM_DRAIN_SECONDS"),
]
RestartsMax = Annotated[
    int,
    typer.Option(
        help="Restarts of one process within the window before its supervisor gives up.",
        envvar="GREENROOM_RESTARTS_MAX",
    ),
]
RestartWindow = Annotated[
    float,
    typer.Option(help="The window of --restarts-max, in seconds.", envvar="GREENROOM_RESTART_WINDOW"),
]
HangSeconds = Annotated[
    float,
    typer.Option(
        help="Kill and restart a process after this long without a heartbeat.",
        envvar="GREENROOM_HANG_SECONDS",
    ),
]
MemoryMax = Annotated[
    str,
    typer.Option(
        help="Memory of each actor, such as 512MiB or 2GiB; without it, a share of what there is.",
        envvar="GREENROOM_MEMORY_MAX",
        show_default=False,
    ),
]
Evict = Annotated[
    Evicted,
    typer.Option(
        help="Which sessions end when --memory-max is reached, oldest first: none, or those without a user.",
        envvar="GREENROOM_EVICT",
    ),
]
LingerSeconds = Annotated[
    float,
    typer.Option(
        help="How long an actor stays awake for the next request; 0 saves CPU, costs latency.",
        envvar="GREENROOM_LINGER_SECONDS",
    ),
]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Format of the log on stderr.", envvar="GREENROOM_LOG_FORMAT"),
]
Level = Annotated[
    LogLevel,
    typer.Option(
        "--log-level", help="What is logged: this and what is more serious.", envvar="GREENROOM_LOG_LEVEL"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.", envvar="GREENROOM_JSON")]
Connect = Annotated[
    str,
    typer.Option(
        help="Address of any node, or the coordinator; several with commas.", envvar="GREENROOM_CONNECT"
    ),
]
ExitWithParent = Annotated[int, typer.Option(hidden=True)]
