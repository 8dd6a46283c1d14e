"""The commands about the sessions of one user: which there are, and their end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from greenroom.errors import UnavailableError, UsageError
from greenroom.fields import LIST_LIMIT_MAX
from greenroom.identities import DEFAULT_NAMESPACE
from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import ask, print_json, print_line
from greenroom_cluster.cli.settings import with_options_of

if TYPE_CHECKING:
    from greenroom.sessions import SessionInfo
    from greenroom_cluster.runtime.proving import Keys
    from greenroom_cluster.user_sessions import OtherNamespaces

_User = Annotated[str, typer.Argument(help="The user's id, as the app gives it to login.")]
_Namespace = Annotated[
    str | None,
    typer.Option(
        help="Namespace of the app; by default `default`, that of apps without a certificate.",
        envvar="GREENROOM_NAMESPACE",
        show_default=False,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command(short_help="List the sessions of a user, and end one or all.")(user)
    app.command("end-sessions", short_help="End all sessions of a user.")(end_sessions)


@with_options_of(config.AccessOptions)
def user(
    access: config.AccessOptions,
    name: _User,
    namespace: _Namespace = None,
    *,
    end: Annotated[
        list[str] | None,
        typer.Option(
            "--end",
            help="End the session with this handle, of those that are listed; may be given again.",
            envvar="GREENROOM_END",
            show_default=False,
        ),
    ] = None,
    end_all: Annotated[
        bool, typer.Option("--end-all", help="End all of them.", envvar="GREENROOM_END_ALL")
    ] = False,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    json: options.Json = False,
) -> None:
    """List the sessions of a user in a namespace: devices, beginnings, ends and handles; or end some.

    No session's id is shown: nobody knows it but its browser. The log of the actors tells who asked.
    """
    handles = end or []
    if handles and end_all:
        raise UsageError("--end names one session, and --end-all ends all: give one of them")
    found = _ask(access, connect, cluster, name, namespace, handles, end_all=end_all, json=json)
    about: dict[str, Any] = {"user": name, "namespace": found.namespace}
    if found.others is not None:
        about["other_namespaces"] = found.others
    sessions = found.sessions
    more = len(sessions) == LIST_LIMIT_MAX
    if json and found.ended is not None:
        print_json({**about, "ended": found.ended})
    elif json:
        print_json({**about, "more": more, "sessions": list(map(_document, sessions))})
    elif found.ended is not None:
        print_line(_ended(found))
    else:
        from greenroom_cluster.cli.tables import print_sessions

        print_sessions(name, found.namespace, sessions, more=more)
    if found.others and not json:
        others = ", ".join(found.others)
        print_line(f"that is namespace {found.namespace}; --namespace names another: {others}")


class _Found(NamedTuple):
    """A user's sessions in a namespace, or how many of them were `ended`.

    `others` are namespaces that may have been meant; None if that was not asked.
    """

    namespace: str
    others: tuple[str, ...] | None
    sessions: "Sequence[SessionInfo]" = ()
    ended: int | None = None


def _ended(found: _Found) -> str:
    return f"sessions ended in namespace {found.namespace}: {found.ended}"


def _ask(
    access: config.AccessOptions,
    connect: str,
    cluster: str,
    user_id: str,
    namespace: str | None,
    handles: Sequence[str],
    *,
    end_all: bool,
    json: bool = False,
) -> _Found:
    """List a user's sessions, or end those with these handles, or all. Raises UsageError."""
    if namespace is not None:
        config.check_name("--namespace", namespace)
    where = namespace or DEFAULT_NAMESPACE

    async def work(addresses: Sequence[str], cluster: str, *, credentials: "Keys | None") -> _Found:
        from greenroom_cluster import user_sessions

        others: tuple[str, ...] | None = None
        # An end by handle names its session, whatever else there is.
        if namespace is None and not handles:
            told = await user_sessions.other_namespaces_at(addresses, cluster, credentials=credentials)
            others = told.names
            if end_all:
                check_clear(told)
        of_user = addresses, cluster, user_id, where
        if end_all:
            ended = await user_sessions.end_sessions_at(*of_user, credentials=credentials)
            return _Found(where, others, ended=ended)
        sessions = await user_sessions.list_sessions_at(*of_user, credentials=credentials)
        if not handles:
            return _Found(where, others, sessions)
        _check_listed(handles, sessions)
        once = dict.fromkeys(handles)
        for handle in once:
            await user_sessions.end_session_at(*of_user, handle, credentials=credentials)
        return _Found(where, others, ended=len(once))

    found: _Found = ask(work, connect, cluster, access=access, role="operator", json=json)
    return found


def check_clear(others: "OtherNamespaces") -> None:
    """Raise UsageError if it is not clear in which namespace to end all, UnavailableError if unknown.

    Else who meant another one would read that none was left, and believe that the user is logged out.
    """
    if others.names:
        raise UsageError(
            f"nothing was ended: give --namespace, because not only {DEFAULT_NAMESPACE} may be meant, "
            f"there are sessions in {', '.join(others.names)} too"
        )
    if others.silent:
        raise UnavailableError(
            f"nothing was ended: primaries that do not answer ({', '.join(others.silent)}) may have sessions "
            f"in other namespaces than {DEFAULT_NAMESPACE}; give --namespace, or order it again"
        )


def _check_listed(handles: Sequence[str], found: "Sequence[SessionInfo]") -> None:
    """Raise UsageError unless all of these are handles of the user's sessions."""
    listed = {each.handle for each in found}
    for handle in handles:
        if handle not in listed:
            raise UsageError(
                f"--end: the user has no session with the handle {handle!r} there, and none was ended; "
                "`greenroom user` lists handles, and names of namespaces are in `greenroom status`"
            )


def _document(session: "SessionInfo") -> dict[str, Any]:
    return {
        "handle": session.handle,
        "label": session.label,
        "created": session.created.isoformat(),
        "expires": session.expires.isoformat(),
        "version": session.version,
    }


@with_options_of(config.AccessOptions)
def end_sessions(
    access: config.AccessOptions,
    user: _User,
    namespace: _Namespace = None,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
) -> None:
    """End all sessions of a user in a namespace, without the app: its users are logged out everywhere."""
    found = _ask(access, connect, cluster, user, namespace, (), end_all=True)
    print_line(_ended(found))
