"""Stores from URLs: `memory://`, `sqlite:///sessions.db`, `greenroom://host:port,host:port/cluster?deadline_seconds=5`."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from greenroom.errors import UsageError
from greenroom.fields import utc_now
from greenroom.loopback import INSECURE_OPTION
from greenroom.memory import MemoryStore
from greenroom.option_kinds import Options
from greenroom.options import CLUSTER_STORE, SQLITE_STORE
from greenroom.sessions import BaseSessionStore

DEFAULT_CLUSTER = "greenroom"

_TLS = ("tls_cert", "tls_key", "tls_ca")
_DENY = "tls_deny"
_TOKEN = "token_file"  # noqa: S105  the name of an option
_PLAINTEXT = ("secret_file", "loopback_proof", INSECURE_OPTION)
_NEAR = ("near_sessions", "near_eager", "watches_max")
_FORMS = 'write "memory://", "sqlite:///sessions.db" or "greenroom://host:port,host:port/cluster?deadline_seconds=5"'
_ELSEWHERE = {
    ("greenroom", "cluster"): "; the cluster's name follows the addresses: greenroom://host:port/NAME",
    ("greenroom", "operations_max"): "; pass operations_max=... to ClusterStore",
    ("greenrooms", "cluster"): "; the cluster's name follows the addresses: greenrooms://host:port/NAME",
    ("greenrooms", "operations_max"): "; pass operations_max=... to ClusterStore",
    ("greenrooms", INSECURE_OPTION): "; it never goes on without TLS",
    **{("greenroom", name): "; with TLS the URL begins with greenrooms://" for name in (*_TLS, _DENY)},
    ("greenroom", _TOKEN): "; a token is sent within TLS only: the URL begins with greenrooms:// then",
    ("sqlite", "operations_max"): "; pass operations_max=... to SqliteStore",
}
_FILE = re.compile(r"sqlite://(?P<host>[^/?#]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?")
# Python refuses to read numbers of thousands of digits, and reads those of other scripts.
_WHOLE = re.compile(r"[0-9]{1,20}")
_SHOWN_MAX = 40
_URL = re.compile(
    r"(?P<scheme>greenrooms?)://(?P<seeds>[^/?#]*)(?:/(?P<cluster>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)


def store_from_url(url: str, *, clock: Callable[[], datetime] = utc_now) -> BaseSessionStore:
    """Return the store that `url` names. It connects later.

    `memory://` is a new, empty MemoryStore; `sqlite:///sessions.db` a SqliteStore on the file of that name in
    this directory, with one slash more (`sqlite:////var/lib/shop/sessions.db`) on that of an absolute path,
    then options: `deadline_seconds` and `synchronous`. Both follow the `clock`; a cluster has its own.
    `greenroom://` lists addresses of the cluster's nodes (IPv6 in brackets), then the cluster's name (default
    "greenroom"), then options: `deadline_seconds`, the time within which an operation answers or raises,
    `zone`, the one in which the app runs, `near_sessions` and `near_eager`, what is kept to be read without
    asking, and on loopback `secret_file` and `loopback_proof`. `greenrooms://` is the same with TLS, never
    without, and has the paths of PEM files as options: `tls_cert`, `tls_key` and `tls_ca`, and if wanted
    `tls_deny`; or `token_file` and `tls_ca`. Raises UsageError, saying what to write, for any other URL.
    """
    if not isinstance(url, str):
        raise UsageError(f"a store URL is a str, not {type(url).__name__}; {_FORMS}")
    if url.startswith("memory:"):
        if url != "memory://":
            raise UsageError('the URL of a memory store is exactly "memory://": it has no options')
        return MemoryStore(clock=clock)
    if url.startswith("sqlite:"):
        return _sqlite_store(url, clock)
    parts = _URL.fullmatch(url)
    if parts is None:
        raise UsageError(f"this is not the URL of a session store; {_FORMS}")
    seeds = parts["seeds"]
    if "@" in seeds:  # refused before anything could quote a password
        raise UsageError(f"the addresses of a cluster hold no user names or passwords; {_FORMS}")
    cluster = unquote(parts["cluster"] or "")
    if "/" in cluster:
        raise UsageError(f"a cluster's name holds no slash; {_FORMS}")
    # Imported here: a process that keeps its sessions in memory needs no network code.
    from greenroom.cluster_store import ClusterStore

    secured = parts["scheme"] == "greenrooms"
    names = ("deadline_seconds", "zone", *_NEAR, *((*_TLS, _DENY, _TOKEN) if secured else _PLAINTEXT))
    options = _url_options(parts["query"], parts["scheme"], CLUSTER_STORE, *names)
    needed = ("tls_ca",) if _TOKEN in options else _TLS
    if secured and (missing := [name for name in needed if name not in options]):
        raise UsageError(
            f"a greenrooms:// URL names the files of TLS, and {_listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: write "
            "greenrooms://host:port/NAME?tls_cert=app.pem&tls_key=app.key&tls_ca=ca.pem, or with a token "
            "?token_file=app.token&tls_ca=ca.pem"
        )
    return ClusterStore(seeds, cluster=cluster or DEFAULT_CLUSTER, **options)


def _listed(names: Sequence[str]) -> str:
    """Return these as a sentence has them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _sqlite_store(url: str, clock: Callable[[], datetime]) -> BaseSessionStore:
    parts = _FILE.fullmatch(url)
    path = unquote(parts["path"] or "") if parts is not None else ""
    if parts is None or parts["host"] or not path or path.endswith("/"):
        raise UsageError(
            'write "sqlite:///sessions.db" for a file in this directory, '
            '"sqlite:////var/lib/shop/sessions.db" for one elsewhere: three slashes, then the path'
        )
    options = _url_options(parts["query"], "sqlite", SQLITE_STORE, "deadline_seconds", "synchronous")
    # Imported here: other processes need no SQLite.
    from greenroom.sqlite_store import SqliteStore

    return SqliteStore(path, clock=clock, **options)


def store_given(store: BaseSessionStore | str, clock: Callable[[], datetime]) -> BaseSessionStore:
    """Return the option `store`: the store itself, or the one that its URL names. Raises UsageError."""
    if isinstance(store, BaseSessionStore):
        return store
    try:
        return store_from_url(store, clock=clock)
    except UsageError as error:
        reason = str(error)
    raise UsageError(f"store is a store, or the URL of one; {reason}")


def _url_options(query: str | None, scheme: str, options: Options, *names: str) -> dict[str, Any]:
    """Return the options in the query of a URL, of those named."""
    given: dict[str, Any] = {}
    for name, text in parse_qsl(query or "", keep_blank_values=True):
        if name not in names:
            hint = _ELSEWHERE.get((scheme, name), "")
            raise UsageError(f"a {scheme}:// URL has no option {name!r}; it has {_listed(names)}{hint}")
        if name in given:
            raise UsageError(f"{name} stands twice in the store URL")
        match name:
            case "deadline_seconds":
                given[name] = _number(text, options)
            case _ if name in (INSECURE_OPTION, "near_eager"):
                given[name] = _switch(name, text)
            case "near_sessions" | "watches_max":
                given[name] = _whole(name, text, options)
            case _:
                given[name] = options.checked(name, text)
    return given


def _switch(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError(f"{name} is true or false in a store URL; not {text!r}")
    return text == "true"


def _whole(name: str, text: str, options: Options) -> int:
    if _WHOLE.fullmatch(text) is None:
        shown = repr(text) if len(text) <= _SHOWN_MAX else f"a text of {len(text)} characters"
        raise UsageError(f"{name} is {options.option(name).takes}; not {shown}")
    whole: int = options.checked(name, int(text))
    return whole


def _number(text: str, options: Options) -> float:
    try:
        seconds: float = options.checked("deadline_seconds", float(text))
    except UsageError as error:
        reason = str(error)
    except ValueError:
        reason = f"deadline_seconds is {options.option('deadline_seconds').takes}; not a text"
    else:
        return seconds
    raise UsageError(f"{reason}; in a store URL it stands as in deadline_seconds=5")
