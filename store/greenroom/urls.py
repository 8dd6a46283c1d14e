"""Stores from URLs: `memory://` and `greenroom://host:port,host:port/cluster?deadline_seconds=5`."""

import math
import re
from urllib.parse import parse_qsl, unquote

from greenroom.errors import UsageError
from greenroom.memory import MemoryStore
from greenroom.sessions import BaseSessionStore

DEFAULT_CLUSTER = "greenroom"
DEFAULT_DEADLINE_SECONDS = 5.0

_FORMS = 'write "memory://" or "greenroom://host:port,host:port/cluster?deadline_seconds=5"'
_URL = re.compile(r"greenroom://(?P<seeds>[^/?#]*)(?:/(?P<cluster>[^?#]*))?(?:\?(?P<query>[^#]*))?")


def store_from_url(url: str) -> BaseSessionStore:
    """Return the store that `url` names; nothing is connected yet.

    `memory://` is a new, empty MemoryStore. `greenroom://` lists addresses of the cluster's nodes (IPv6 in
    brackets), then the cluster's name (default "greenroom"), then options: `deadline_seconds`, the time
    within which an operation answers or raises. Raises UsageError, saying what to write, if it is neither.
    """
    if not isinstance(url, str):
        raise UsageError(f"a store URL is a str, not {type(url).__name__}; {_FORMS}")
    if url.startswith("memory:"):
        if url != "memory://":
            raise UsageError('the URL of a memory store is exactly "memory://"')
        return MemoryStore()
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
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            raise UsageError("deadline_seconds is a positive number of seconds, as in deadline_seconds=5")
    return seconds
