"""How a command asks a running cluster, and what it says when it cannot."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from greenroom.errors import UsageError
from greenroom.rereading import ignore
from greenroom.tls.credentials import BearerCredentials, Credentials
from greenroom_cluster import config
from greenroom_cluster.escaping import printable
from greenroom_cluster.exits import EXIT_UNREACHABLE, EXIT_USAGE, fail
from greenroom_cluster.logs import LogSettings

if TYPE_CHECKING:
    from greenroom_cluster.runtime.proving import Keys

_LOGS_OF_QUESTIONS = LogSettings(level="error")


def run(
    work: Callable[..., Awaitable[Any]],
    *arguments: Any,
    logs: LogSettings = _LOGS_OF_QUESTIONS,
    writer: str = "",
) -> Any:
    """Run `work` under trio; `writer` names this process in the log."""
    import trio

    from greenroom_cluster.logs import configure

    configure(logs, writer)
    return trio.run(work, *arguments)


def addresses_of(connect: str) -> list[str]:
    """Return the addresses in --connect. Raises UsageError if one is none, or there are none."""
    addresses = [address.strip() for address in connect.split(",") if address.strip()]
    for address in addresses:
        config.check_address("--connect", address)
    if not addresses:
        raise UsageError("--connect names no address; give host:port of a node")
    return addresses


def ask(
    work: Callable[..., Awaitable[Any]],
    connect: str,
    cluster: str,
    *more: Any,
    access: config.AccessOptions,
    json: bool = False,
    failed: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Run `work` on the cluster at these addresses; if none answers, say so and exit.

    `work` is told by a keyword how to secure its connections. With `json`, the error is printed as JSON too,
    after what `failed` holds.
    """
    from greenroom_cluster.questions import NoNodeError

    try:
        secured = partial(work, credentials=keys_of(access, cluster))
        return run(secured, addresses_of(connect), cluster, *more)
    except NoNodeError as error:
        text = str(error)
        if not error.untrusted:  # else the address is right
            text += ". Does --connect (GREENROOM_CONNECT) name a node that runs, and not an actor?"
        status = EXIT_UNREACHABLE
    except UsageError as error:
        text, status = str(error), EXIT_USAGE
    tell = partial(print_error, failed) if json else None
    return fail(printable(text), status, tell)


def keys_of(access: config.AccessOptions, cluster: str) -> "Keys | None":
    """Return what a command shows or proves to this cluster; None for nothing. Raises UsageError.

    It is over before files change, so it says nothing of that.
    """
    bearer = access.tls.bearer_files()
    if bearer is not None:
        return BearerCredentials(bearer, ignore)
    files = access.tls.files()
    return access.proof.secrets(cluster) if files is None else Credentials(files, ignore)


def print_json(document: dict[str, Any]) -> None:
    """Print one line of JSON."""
    print_line(msgspec.json.encode(document).decode())


def print_error(failed: Mapping[str, Any], text: str) -> None:
    """Print a line of JSON with an error, after what `failed` holds."""
    print_json({**failed, "error": text})


def print_line(text: str) -> None:
    """Print a line on standard output, if that is open: what was done is done without it too."""
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
