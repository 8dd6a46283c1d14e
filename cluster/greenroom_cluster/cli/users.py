"""The commands about the sessions of one user: which there are, and their end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenroom.errors import UsageError
from greenroom.fields import LIST_LIMIT_MAX
from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import ask, print_json, print_line
from greenroom_cluster.cli.settings import with_options_of

if TYPE_CHECKING:
    from greenroom.sessions import SessionInfo
    from greenroom_cluster.runtime.proving import Keys

_User = Annotated[str, typer.Argument(help="The user's id, as the app gives it to login.")]
_Namespace = Annotated[
    str,
    typer.Option(
        help="Namespace of the app; `default` for apps without a certificate.",
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
    namespace: _Namespace,
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
    config.check_name("--namespace", namespace)
    handles = end or []
    if handles and end_all:
        raise UsageError("--end names one session, and --end-all ends all: give one of them")

    async def work(addresses: Sequence[str], cluster: str, *, credentials: "Keys | None") -> Any:
        from greenroom_cluster.user_sessions import end_session_at, end_sessions_at, list_sessions_at

        if end_all:
            return await end_sessions_at(addresses, cluster, name, namespace, credentials=credentials)
        found = await list_sessions_at(addresses, cluster, name, namespace, credentials=credentials)
        if not handles:
            return found
        _check_listed(handles, found)
        once = dict.fromkeys(handles)
        for handle in once:
            await end_session_at(addresses, cluster, name, namespace, handle, credentials=credentials)
        return len(once)

    answer = ask(work, connect, cluster, access=access, json=json)
    about = {"user": name, "namespace": namespace}
    if isinstance(answer, int):
        if json:
            print_json({**about, "ended": answer})
        else:
            print_line(f"sessions ended: {answer}")
    elif json:
        print_json({**about, "more": len(answer) == LIST_LIMIT_MAX, "sessions": list(map(_document, answer))})
    else:
        from greenroom_cluster.cli.tables import print_sessions

        print_sessions(name, namespace, answer, more=len(answer) == LIST_LIMIT_MAX)


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
    namespace: _Namespace,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
) -> None:
    """End all sessions of a user in a namespace, without the app: its users are logged out everywhere."""
    from greenroom_cluster.user_sessions import end_sessions_at

    config.check_name("--namespace", namespace)
    ended = ask(end_sessions_at, connect, cluster, user, namespace, access=access)
    print_line(f"sessions ended: {ended}")
