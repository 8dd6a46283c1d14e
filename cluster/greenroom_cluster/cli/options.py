"""Options of the commands that query a cluster. Options of processes are fields of their settings."""

from functools import partial
from typing import Annotated

import typer

from greenroom.errors import UsageError
from greenroom_cluster.cli.asking import print_error
from greenroom_cluster.config import CLUSTER_FLAG
from greenroom_cluster.exits import tell_errors_also

Cluster = Annotated[str, typer.Option(help=CLUSTER_FLAG.help, envvar="GREENROOM_CLUSTER")]


def _tell_errors(json: bool) -> bool:  # noqa: FBT001  typer passes the option's value
    if json:
        tell_errors_also(partial(print_error, {}))
    return json


Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON for machines.", envvar="GREENROOM_JSON", callback=_tell_errors),
]
Connect = Annotated[
    str,
    typer.Option(
        help="Address of any node, or the coordinator; several with commas.", envvar="GREENROOM_CONNECT"
    ),
]

INTERVAL_SECONDS = 2.0
_INTERVAL_SECONDS_MIN = 0.2
_INTERVAL_SECONDS_MAX = 3600

Interval = Annotated[
    float, typer.Option(help="Seconds between one look and the next.", envvar="GREENROOM_INTERVAL")
]
Count = Annotated[int, typer.Option(help="End after so many looks; 0: never.", envvar="GREENROOM_COUNT")]


def check_looks(interval: float, count: int) -> None:
    """Raise UsageError, naming the option, if one cannot look so often."""
    if not _INTERVAL_SECONDS_MIN <= interval <= _INTERVAL_SECONDS_MAX:
        raise UsageError(
            f"--interval must be {_INTERVAL_SECONDS_MIN:g} to {_INTERVAL_SECONDS_MAX:g} seconds; it is "
            f"{interval:g}"
        )
    if count < 0:
        raise UsageError(f"--count must be 0 or more; it is {count}")
