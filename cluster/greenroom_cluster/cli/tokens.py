"""`greenroom tokens`: tokens for apps that cannot do certificates. No cluster needs to run."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from greenroom.errors import UsageError
from greenroom.identities import parse_identity
from greenroom.tokens import Token, new_token
from greenroom_cluster import config
from greenroom_cluster.backups.new_file import NewFile
from greenroom_cluster.certificates.lifetimes import LEAF_DAYS
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import print_json
from greenroom_cluster.cli.holders import (
    check_days,
    days_option,
    holder_of,
    namespace_option,
    print_holders,
    say,
    say_namespace,
)
from greenroom_cluster.exits import EXIT_FAILED
from greenroom_cluster.tokens.entries import (
    end_text,
    line_of,
    parse_entries,
    with_entry,
    with_revoked,
)
from greenroom_cluster.tokens.files import held, text_of, write_text
from greenroom_cluster.tokens.survey import DAY_SECONDS, TokenShown, shown, valid_for_the_same
from greenroom_cluster.tokens.table import Bearer

_TOKENS = Path("greenroom-tokens")
_ID_CHARACTERS = 54

_Tokens = Annotated[
    Path, typer.Option("--tokens", help="The file by which servers know tokens.", envvar="GREENROOM_TOKENS")
]

tokens = typer.Typer(
    help="Make tokens for apps and observers that cannot do certificates.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.add_typer(tokens, name="tokens", short_help="Make tokens for apps that cannot do certificates.")


@tokens.command(short_help="Make a token for an app or observer.")
def issue(
    name: Annotated[str, typer.Argument(help="The name of the holder, as a certificate would have it.")],
    *,
    role: Annotated[
        Literal["client", "observer"],
        typer.Option(help="Whether it is an app, or only looks.", envvar="GREENROOM_TOKENS_ROLE"),
    ] = "client",
    namespace: Annotated[str, namespace_option("GREENROOM_TOKENS_NAMESPACE")] = "",
    days: Annotated[int, days_option("GREENROOM_TOKENS_DAYS")] = LEAF_DAYS,
    cluster: options.Cluster = config.CLUSTER,
    tokens: _Tokens = _TOKENS,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The new file of the token; by default NAME.token.",
            envvar="GREENROOM_TOKENS_OUT",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a token: a file for its holder, and a line in the file by which servers know it.

    Former tokens of the same holder count on until they end or are revoked.
    """
    config.check_name("--cluster", cluster)
    identity = holder_of(cluster, role, name, namespace)
    check_days(days)
    now = time.time()
    token = new_token(_new_id(name), secrets.token_bytes)
    bearer = Bearer(token.id, token.digest, identity, int(now + days * DAY_SECONDS))
    path = out or Path(f"{name}.token")
    former = _write_new(tokens, bearer, path, token, now)
    if json:
        files = {"file": str(path), "tokens": str(tokens), "line": line_of(bearer)}
        print_json({**msgspec.to_builtins(shown(bearer, now)), **files, "former": former})
        return
    say(f"{path} is the token {token.id} of {identity.uri}, up to {end_text(bearer.ends_at)}")
    say_namespace(identity)
    if former:
        say(f"Valid for the same holder: {', '.join(former)}. Revoke what is not used any more.")
    say(f"{tokens} has the line by which servers know it:")
    say(line_of(bearer))
    say(f"Next: copy {tokens} to each node, to the file of --tokens")
    say(f"Then: move {path} to its holder, where only the user who runs the app may read it")


def _write_new(tokens: Path, bearer: Bearer, path: Path, token: Token, now: float) -> list[str]:
    """Write both files, or none; return the ids of former tokens of the same holder that count still."""
    with held(tokens):
        text = text_of(tokens) if tokens.exists() else ""
        bearers = parse_entries(text)
        _check_cluster(tokens, bearers, bearer.identity.cluster)
        former = valid_for_the_same(bearers, bearer, now)
        with NewFile(path) as file:
            file.write(token.written())
            file.finish()
        try:
            write_text(tokens, with_entry(text, bearer))
        except BaseException:
            path.unlink()
            raise
    return former


def _check_cluster(tokens: Path, bearers: Sequence[Bearer], cluster: str) -> None:
    # Nodes refuse a file with one line of another cluster, and do not start with it.
    for each in bearers:
        if (other := each.identity.cluster) != cluster:
            raise UsageError(
                f"{tokens} is for the cluster {other!r}: give --cluster {other} (GREENROOM_CLUSTER), or, for "
                f"the cluster {cluster!r}, another file by --tokens (GREENROOM_TOKENS)"
            )


def _new_id(name: str) -> str:
    return f"{name.replace('.', '-')[:_ID_CHARACTERS]}-{secrets.token_hex(4)}"


@tokens.command(short_help="Show tokens, and what is to be done about them.")
def show(*, tokens: _Tokens = _TOKENS, json: options.Json = False) -> None:
    """Show tokens: whose, up to when, and what is to be done. Exit with 1 if something is."""
    now = time.time()
    found = [shown(each, now) for each in parse_entries(text_of(tokens))]
    if json:
        print_json({"tokens": msgspec.to_builtins(found)})
    else:
        _print_table(found)
    if any(each.problem for each in found):
        raise typer.Exit(EXIT_FAILED)


@tokens.command(short_help="Have tokens count no more.")
def revoke(
    revoked: Annotated[
        list[str], typer.Argument(help="Ids of tokens, or identities (greenroom://CLUSTER/client/NAME).")
    ],
    *,
    tokens: _Tokens = _TOKENS,
    json: options.Json = False,
) -> None:
    """Have tokens count no more; an identity stands for all that it has."""
    with held(tokens):
        text = text_of(tokens)
        bearers = parse_entries(text)
        wanted = [token_id for each in revoked for token_id in _ids(bearers, each)]
        new = [each.token_id for each in bearers if each.token_id in wanted and not each.revoked]
        write_text(tokens, with_revoked(text, new))
    if json:
        print_json({"revoked": new, "already": sorted({*wanted} - {*new}), "tokens": str(tokens)})
        return
    say(f"{len(new)} tokens are revoked in {tokens}; {len({*wanted}) - len(new)} were already")
    say(f"Next: copy {tokens} to each node, which reads it by --tokens and ends their connections")


def _ids(bearers: Sequence[Bearer], text: str) -> list[str]:
    identity = parse_identity(text) if "://" in text else None
    found = [each.token_id for each in bearers if text == each.token_id or identity == each.identity]
    if not found:
        raise UsageError(f"there is no token of {text}: `greenroom tokens show` lists them")
    return found


def _print_table(found: Sequence[TokenShown]) -> None:
    print_holders(
        ("id", "identity", "ends", "state"),
        ((each.id, each.identity, each.ends, each.state) for each in found),
        ((each.id, each.problem) for each in found if each.problem),
    )
