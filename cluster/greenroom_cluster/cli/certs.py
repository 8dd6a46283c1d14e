"""`greenroom certs`: an authority in a directory, and what it issues. No cluster needs to run."""

import errno
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from greenroom.errors import GreenroomError, UsageError
from greenroom.identities import IdentityRole, Purpose
from greenroom_cluster import config
from greenroom_cluster.certificates.lifetimes import LEAF_DAYS
from greenroom_cluster.certificates.rotation import Step
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
from greenroom_cluster.cli.passphrases import new_passphrase, passphrase_of
from greenroom_cluster.cli.rotation import said_of_step
from greenroom_cluster.escaping import printable
from greenroom_cluster.exits import EXIT_FAILED

_DIRECTORY = Path("greenroom-ca")

_Authority = Annotated[
    Path, typer.Option("--ca", help="The authority's directory.", envvar="GREENROOM_CERTS_CA")
]
_Name = Annotated[str, typer.Argument(help="The name of the holder.")]
_Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the holder's files; by default one of its name.",
        envvar="GREENROOM_CERTS_OUT",
        show_default=False,
    ),
]
_Hosts = Annotated[
    str,
    typer.Option(
        help="Hosts and addresses to name too, separated by commas; Greenroom itself ignores them.",
        envvar="GREENROOM_CERTS_HOSTS",
        show_default=False,
    ),
]
_Days = Annotated[int, days_option("GREENROOM_CERTS_DAYS")]
_PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="File of mode 0600 whose first line is the passphrase of the authority's key.",
        envvar="GREENROOM_CERTS_PASSPHRASE_FILE",
        show_default=False,
    ),
]
_Deny = Annotated[
    Path | None,
    typer.Option(
        help="The deny list; by default denied.txt in the authority's directory.",
        envvar="GREENROOM_CERTS_DENY",
        show_default=False,
    ),
]
_RenewedDays = Annotated[
    int | None,
    typer.Option(
        help="For how many days it is valid, 1 to 825; by default for as many as the former.",
        envvar="GREENROOM_CERTS_DAYS",
        show_default=False,
    ),
]
_DaysLeft = Annotated[
    int | None,
    typer.Option(
        help="Renew only those that end within so many days.",
        envvar="GREENROOM_CERTS_DAYS_LEFT",
        show_default=False,
    ),
]
_HOLDERS = {
    "node": "Issue a certificate for a node, by its --name.",
    "operator": "Issue a certificate for who may make permanent changes.",
    "observer": "Issue a certificate for who only looks, such as monitoring.",
}


class _Commands(TyperGroup):
    """Has a file that cannot be used end in one line, too."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own name of that class
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise GreenroomError(
                f"{error.filename or 'a file'} cannot be used ({error.strerror}): run this as its owner"
            ) from error


certs = typer.Typer(
    cls=_Commands,
    help="Make an authority, and the certificates that say who belongs to a cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.add_typer(certs, name="certs", short_help="Make certificates that say who belongs to a cluster.")


@certs.command(short_help="Make an authority for a cluster.")
def init(
    *,
    ca: _Authority = _DIRECTORY,
    cluster: options.Cluster = config.CLUSTER,
    purpose: Annotated[
        Purpose,
        typer.Option(
            "--for",
            help="Whom it may certify: all; servers, operators and observers; or clients.",
            envvar="GREENROOM_CERTS_FOR",
        ),
    ] = "all",
    passphrase_file: _PassphraseFile = None,
    no_passphrase: Annotated[
        bool,
        typer.Option(
            "--no-passphrase",
            help="Protect the authority's key by its file's mode alone.",
            envvar="GREENROOM_CERTS_NO_PASSPHRASE",
        ),
    ] = False,
) -> None:
    """Make an authority for a cluster, in a directory that belongs on no node."""
    from greenroom_cluster.certificates.authority import STATE, create

    config.check_name("--cluster", cluster)
    if (ca / STATE).exists():
        raise UsageError(f"there is an authority in {ca} already: name another directory with --ca")
    passphrase = new_passphrase(passphrase_file, none=no_passphrase)
    create(ca, cluster, purpose, passphrase, now=_now())
    say(f"{ca} holds an authority of cluster {cluster} for {purpose}.")
    say("Keep it off the hosts of nodes and apps, and keep a copy of it.")
    say(f"Next: {_first_use(purpose, ca)}")


def _first_use(purpose: Purpose, ca: Path) -> str:
    if purpose == "all":
        return "`greenroom certs coordinator`, and `greenroom certs node NAME` for each node"
    other = "clients" if purpose == "servers" else "servers"
    return (
        f"give {ca / 'authority.pem'} to who runs the authority for {other}, and have that one trusted here: "
        "`greenroom certs trust FILE`"
    )


@certs.command(short_help="Have holders trust the other authority too.")
def trust(
    file: Annotated[Path, typer.Argument(help="The file authority.pem of the other authority.")],
    *,
    ca: _Authority = _DIRECTORY,
) -> None:
    """Have holders of this authority's certificates trust another authority too, and no third one.

    For two authorities, one for servers and one for clients. Repeat it when the other one rotates.
    """
    from greenroom_cluster.certificates.authority import open_authority
    from greenroom_cluster.certificates.holders import read_certificates

    with open_authority(ca) as authority:
        authority.trust(read_certificates(file))
    say(f"{ca / 'ca.pem'} is renewed. Next: copy it to each holder of a certificate of this authority")


def _issuing(role: IdentityRole) -> Callable[..., None]:
    def issue(
        name: _Name,
        *,
        ca: _Authority = _DIRECTORY,
        out: _Out = None,
        hosts: _Hosts = "",
        days: _Days = LEAF_DAYS,
        passphrase_file: _PassphraseFile = None,
    ) -> None:
        _issue(role, name, ca, out, hosts, days, passphrase_file)

    issue.__doc__ = _HOLDERS[role]
    return issue


for _role in ("node", "operator", "observer"):
    certs.command(_role)(_issuing(_role))


@certs.command()
def coordinator(
    name: _Name = "coordinator",
    *,
    ca: _Authority = _DIRECTORY,
    out: _Out = None,
    hosts: _Hosts = "",
    days: _Days = LEAF_DAYS,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Issue a certificate for the coordinator."""
    _issue("coordinator", name, ca, out, hosts, days, passphrase_file)


@certs.command()
def client(
    name: _Name,
    *,
    ca: _Authority = _DIRECTORY,
    out: _Out = None,
    hosts: _Hosts = "",
    days: _Days = LEAF_DAYS,
    passphrase_file: _PassphraseFile = None,
    namespace: Annotated[str, namespace_option("GREENROOM_CERTS_NAMESPACE")] = "",
) -> None:
    """Issue a certificate for an app, by a name for it."""
    _issue("client", name, ca, out, hosts, days, passphrase_file, namespace)


def _issue(
    role: IdentityRole,
    name: str,
    ca: Path,
    out: Path | None,
    hosts: str,
    days: int,
    passphrase_file: Path | None,
    namespace: str = "",
) -> None:
    from greenroom_cluster.certificates.authority import open_authority
    from greenroom_cluster.certificates.examining import identity_in, serial_text
    from greenroom_cluster.certificates.holders import check_free, write_new
    from greenroom_cluster.certificates.issuing import parse_hosts

    lifetime, named = _lifetime(days), parse_hosts(hosts)
    directory = out or Path(name)
    with open_authority(ca) as authority:
        identity = holder_of(authority.name.cluster, role, name, namespace)
        check_free(directory, name)
        valid = [
            serial_text(each.serial_number)
            for each in authority.valid(_now())
            if identity_in(each) == identity
        ]
        holder = authority.issue(
            identity, passphrase_of(passphrase_file), now=_now(), lifetime=lifetime, hosts=named
        )
        try:
            path = write_new(directory, name, holder)
        except BaseException:
            authority.withdraw(holder.certificate)
            raise
    say(f"{path} is the certificate of {identity.uri}, up to {_day(holder.certificate.not_valid_after_utc)}")
    say_namespace(identity)
    if valid:
        say(f"Valid for the same identity: {', '.join(valid)}. Revoke what is not used any more.")
    say(f"Next: move {directory} to its host, where only the user who runs it may read it")


@certs.command(short_help="Show certificates, and what is to be done about them.")
def show(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Certificates, or directories to look through; by default this one."),
    ] = None,
    *,
    ca: _Authority = _DIRECTORY,
    deny: _Deny = None,
    json: options.Json = False,
) -> None:
    """Show certificates: whose, up to when, whether chain and key are right, and what is to be done.

    Exit with 1 if something is to be done.
    """
    from greenroom_cluster.certificates.survey import survey

    below = paths or [Path()]
    found = survey(below, ca, deny, now=_now())
    if not found:
        raise _none_below(below)
    if json:
        print_json({"certificates": msgspec.to_builtins(found)})
    else:
        _print_table(found)
    if any(each.problems for each in found):
        raise typer.Exit(EXIT_FAILED)


@certs.command(short_help="Give holders a new key and certificate.")
def renew(
    paths: Annotated[list[Path], typer.Argument(help="Certificates, or directories to look through.")],
    *,
    ca: _Authority = _DIRECTORY,
    days: _RenewedDays = None,
    days_left: _DaysLeft = None,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Give holders a new key and a certificate of the same identity, in the same files.

    The former stay valid until they end: revoke them if a key may have been seen. The ca.pem of holders that
    are not yet due is brought up to date.
    """
    from greenroom_cluster.certificates.authority import open_authority
    from greenroom_cluster.certificates.examining import is_due
    from greenroom_cluster.certificates.holders import TRUSTED
    from greenroom_cluster.certificates.renewing import refresh_trusted, renew_holder
    from greenroom_cluster.certificates.survey import holders_below

    lifetime = None if days is None else _lifetime(days)
    left = None if days_left is None else timedelta(days=days_left)
    files = holders_below(paths)
    if not files:
        raise UsageError(
            f"there is no certificate in {', '.join(map(str, paths))}: name its file, or directory"
        )
    due = {path for path, certificate in files if left is None or is_due(certificate, _now(), left)}
    done = brought = failed = 0
    with open_authority(ca) as authority:
        passphrase = passphrase_of(passphrase_file)
        for path, certificate in files:
            try:
                if path in due:
                    renewed = renew_holder(authority, path, passphrase, now=_now(), lifetime=lifetime)
                    done += 1
                    say(f"{path} is renewed, up to {_day(renewed.not_valid_after_utc)}")
                elif refresh_trusted(authority, path, certificate):
                    brought += 1
                    say(f"{path.with_name(TRUSTED)} is brought up to date")
            except GreenroomError as error:
                # The others go on: one holder that must not be renewed is no reason for all to end.
                failed += 1
                sys.stderr.write(f"greenroom: {printable(str(error))}\n")
    say(f"renewed: {done}, not yet due: {len(files) - len(due)}, failed: {failed}")
    if done or brought:
        say("Next: copy their directories to their hosts")
    if failed:
        raise typer.Exit(EXIT_FAILED)


@certs.command(short_help="Put certificates on the deny list.")
def revoke(
    revoked: Annotated[
        list[str],
        typer.Argument(
            help="Files of certificates, serial numbers, or identities (greenroom://CLUSTER/client/NAME)."
        ),
    ],
    *,
    ca: _Authority = _DIRECTORY,
    deny: _Deny = None,
) -> None:
    """Put certificates on the deny list; an identity stands for all that it has and that have not ended."""
    from greenroom_cluster.certificates.authority import open_authority
    from greenroom_cluster.certificates.denied import deny as put_on
    from greenroom_cluster.certificates.revoking import serials_of, unknown_to

    with open_authority(ca) as authority:
        serials = [serial for each in revoked for serial in serials_of(authority, each, now=_now())]
        unknown = unknown_to(authority, serials, now=_now())
        path = deny or authority.deny_list
        new = put_on(path, serials)
    say(f"{path} has {new} new serial numbers; {len(serials) - new} were on it already")
    if unknown:
        say(f"Of no certificate that this authority has issued, as far as it knows: {', '.join(unknown)}")
    say("Next: copy it to the coordinator and each node, which read it by --tls-deny")


def _none_below(paths: Sequence[Path]) -> UsageError:
    return UsageError(f"there is no certificate in {', '.join(map(str, paths))}: name its file, or directory")


@certs.command("rotate-ca", short_help="Take the next of three steps to a new authority.")
def rotate_ca(
    step: Annotated[
        Step,
        typer.Argument(help="The step, in this order."),
    ],
    *,
    ca: _Authority = _DIRECTORY,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Take the next of three steps to a new authority: trust-both, issue-from-new, drop-old.

    Before the next one, copy to holders what the step says.
    """
    from greenroom_cluster.certificates.authority import open_authority

    with open_authority(ca) as authority:
        authority.rotate(step, passphrase_of(passphrase_file), now=_now())
        purpose = authority.name.purpose
    say(said_of_step(step, purpose, ca))


def _lifetime(days: int) -> timedelta:
    check_days(days)
    return timedelta(days=days)


def _now() -> datetime:
    return datetime.now(UTC)


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _print_table(found: Sequence[Any]) -> None:
    print_holders(
        ("file", "identity", "role", "ends", "serial", "issuer", "chain", "key"),
        (
            (
                *(each.file, each.identity, each.role, _day(each.ends)),
                *(each.serial, each.issuer, each.chain, each.key or "-"),
            )
            for each in found
        ),
        ((each.file, problem) for each in found for problem in each.problems),
    )
