"""What `greenroom certs` and `greenroom tokens` have in common: whose a proof is, for how long, and lists."""

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from greenroom.errors import UsageError
from greenroom.identities import DEFAULT_NAMESPACE, Identity, IdentityRole
from greenroom_cluster import config
from greenroom_cluster.certificates.lifetimes import LEAF_DAYS_MAX
from greenroom_cluster.cli.asking import print_line
from greenroom_cluster.escaping import printable


def namespace_option(variable: str) -> Any:
    """Return the option that says in which namespace an app is."""
    return typer.Option(
        help="The namespace of the app's sessions; by default one of its name. `default` is that of apps "
        "without TLS.",
        envvar=variable,
        show_default=False,
    )


def days_option(variable: str) -> Any:
    """Return the option that says for how long a proof counts."""
    return typer.Option(help=f"For how many days it counts, 1 to {LEAF_DAYS_MAX}.", envvar=variable)


def check_days(days: int) -> None:
    """Raise UsageError if nothing is issued for so long."""
    if not 1 <= days <= LEAF_DAYS_MAX:
        raise UsageError(f"--days must be 1 to {LEAF_DAYS_MAX}; it is {days}")


def holder_of(cluster: str, role: IdentityRole, name: str, namespace: str) -> Identity:
    """Return whom something is issued for. Raises UsageError."""
    config.check_name("the name", name)
    if namespace:
        if role != "client":
            raise UsageError(f"--namespace is for apps: the role {role} has none")
        config.check_name("--namespace", namespace)
    # It is in the one of its own name anyhow, under one identity however that was asked for.
    return Identity(cluster, role, name, "" if namespace == name else namespace)


def say(text: str) -> None:
    """Print lines, whatever names they hold."""
    for line in text.splitlines():
        print_line(printable(line))


def say_namespace(identity: Identity) -> None:
    """Say whose sessions an app has: those of its own name, unless that was asked for otherwise."""
    if identity.role != "client":
        return
    text = f"Its sessions are those of the namespace {identity.namespace or DEFAULT_NAMESPACE}"
    if not identity.issued_for:
        text += ", that of its name: --namespace puts it into another (`default`: that of apps without TLS)"
    say(text)


def print_holders(
    columns: Sequence[str], rows: Iterable[Sequence[str]], problems: Iterable[tuple[str, str]]
) -> None:
    """Print a table, and below it what is to be done: of what, and what."""
    from rich.text import Text

    from greenroom_cluster.cli.layout import add_row, new_table, wide_console

    console, table = wide_console(), new_table(*columns)
    for row in rows:
        add_row(table, *row)
    console.print(table)
    for what, problem in problems:
        console.print(Text(printable(f"{what}: {problem}"), style="bold red"))
