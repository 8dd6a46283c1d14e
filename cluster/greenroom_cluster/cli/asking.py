"""How a command asks a running cluster, and what it says when it cannot."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from greenroom.errors import UsageError
from greenroom.identities import Identity, IdentityRole
from greenroom.rereading import ignore
from greenroom.tls.credentials import BearerCredentials, Credentials
from greenroom_cluster import config
from greenroom_cluster.escaping import printable
from greenroom_cluster.exits import EXIT_UNREACHABLE, EXIT_USAGE, fail
from greenroom_cluster.logs import LogSettings

if TYPE_CHECKING:
    from greenroom_cluster.runtime.proving import Keys

_LOGS_OF_QUESTIONS = LogSettings(level="error")
_SHOWN_AS: Mapping[IdentityRole, frozenset[IdentityRole]] = {
    "observer": frozenset({"observer", "operator", "node"}),
    "operator": frozenset({"operator"}),
    "client": frozenset({"client"}),
}
"""Whose certificate is for what a command does: looks, changes something, or creates sessions."""
_A: Mapping[IdentityRole, str] = {
    "observer": "an observer or operator",
    "operator": "an operator",
    "client": "a client",
}


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
    role: IdentityRole = "observer",
    json: bool = False,
    failed: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Run `work` on the cluster at these addresses, in a role; if none answers, say so and exit.

    `work` is told by a keyword how to secure its connections. With `json`, the error is printed as JSON too,
    after what `failed` holds.
    """
    from greenroom_cluster.questions import NoNodeError

    try:
        secured = partial(work, credentials=keys_of(access, cluster, role))
        return run(secured, addresses_of(connect), cluster, *more)
    except NoNodeError as error:
        text = str(error)
        if not error.untrusted:  # else the address is right
            text += (
                ". Does --connect (GREENROOM_CONNECT) name a node that runs, and not an actor? A node that "
                "has not found its coordinator yet does not answer, nor does a coordinator that stands by"
            )
        status = EXIT_UNREACHABLE
    except UsageError as error:
        text, status = str(error), EXIT_USAGE
    tell = partial(print_error, failed) if json else None
    return fail(printable(text), status, tell)


def keys_of(access: config.AccessOptions, cluster: str, role: IdentityRole = "observer") -> "Keys | None":
    """Return what a command shows or proves to this cluster; None for nothing.

    Raises UsageError, also if that is not for what the command does. It is over before files change, so it
    says nothing of that.
    """
    bearer = access.tls.bearer_files()
    if bearer is not None:
        if role != "observer":
            raise UsageError(
                f"{bearer.option('token')}: no token is for this: give the certificate of {_A[role]} with "
                "--tls-cert, --tls-key and --tls-ca"
            )
        return BearerCredentials(bearer, ignore)
    files = access.tls.files()
    if files is None:
        return access.proof.secrets(cluster)
    option = files.option("cert")

    def check(identity: Identity) -> None:
        if identity.role not in _SHOWN_AS[role]:
            raise UsageError(
                f"{option}: the certificate is that of {identity.uri}, and this needs that of {_A[role]}"
            )

    return Credentials(files, ignore, check=check)


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
