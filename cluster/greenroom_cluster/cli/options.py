"""Options of the commands that query a cluster. Options of processes are fields of their settings."""

from typing import Annotated

import typer

from greenroom_cluster.config import CLUSTER_FLAG

Cluster = Annotated[str, typer.Option(help=CLUSTER_FLAG.help, envvar="GREENROOM_CLUSTER")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.", envvar="GREENROOM_JSON")]
Connect = Annotated[
    str,
    typer.Option(
        help="Address of any node, or the coordinator; several with commas.", envvar="GREENROOM_CONNECT"
    ),
]
