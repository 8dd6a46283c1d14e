"""Stores from URLs: `memory://` and `greenroom://host:port,host:port/cluster?deadline_seconds=5`."""

import re
from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qsl, unquote

from greenroom.errors import UsageError
from greenroom.fields import utc_now
from greenroom.memory import MemoryStore
from greenroom.options import CLUSTER_STORE
from greenroom.sessions import BaseSessionStore

DEFAULT_CLUSTER = "greenroom"
DEFAULT_DEADLINE_SECONDS = 5.0

_FORMS = 'write "memory://" or "greenroom://host:port,host:port/cluster?deadline_seconds=5"'
_URL = re.compile(r"greenroom://(?P<seeds>[^/?#]*)(?:/(?P<cluster>[^?#]*))?(?:\?(?P<query>[^#]*))?")


def store_from_url(url: str, *, clock: Callable[[], datetime] = utc_now) -> BaseSessionStore:
    """Return the store that `url` names. It connects later.

    `memory://` is a new, empty MemoryStore, which follows the `clock`; a cluster has its own. `greenroom://`
    lists addresses of the cluster's nodes (IPv6 in brackets), then the cluster's name (default "greenroom"),
    then options: `deadline_seconds`, the time within which an operation answers or raises. Raises UsageError,
    saying what to write, for any other URL.
    """
    if not isinstance(url, str):
        raise UsageError(f"a store URL is a str, not {type(url).__name__}; {_FORMS}")
    if url.startswith("memory:"):
        if url != "memory://":
            raise UsageError('the URL of a memory store is exactly "memory://"')
        return MemoryStore(clock=clock)
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

    return ClusterStore(
        seeds, cluster=cluster or DEFAULT_CLUSTER, deadline_seconds=_deadline_seconds(parts["query"] or "")
    )


def store_given(store: BaseSessionStore | str, clock: Callable[[], datetime]) -> BaseSessionStore:
    """Return the option `store`: the store itself, or the one that its URL names. Raises UsageError."""
    if isinstance(store, BaseSessionStore):
        return store
    try:
        return store_from_url(store, clock=clock)
    except UsageError as error:
        reason = str(error)
    raise UsageError(f"store is a store, or the URL of one; {reason}")


def _deadline_seconds(query: str) -> float:
    """Return the one option that a URL has, or its default."""
    seconds = DEFAULT_DEADLINE_SECONDS
    seen = False
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name != "deadline_seconds":
            raise UsageError(f"a store URL has no option {name!r}; it has deadline_seconds")
        if seen:
            raise UsageError("deadline_seconds stands twice in the store URL")
        seen = True
        seconds = _number(text)
    return seconds


def _number(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    try:
        CLUSTER_STORE.check(deadline_seconds=seconds)
    except UsageError as error:
        raise UsageError(f"{error}; in a store URL it stands as in deadline_seconds=5") from None
    return seconds
