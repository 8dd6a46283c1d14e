"""Namespaces: what a client can name, see, count, end and fill.

A session outside of the namespace `default` has a key that is its digest followed by the name, and its user
is known by a pair. A message has digests of 32 bytes and users that are texts, so nobody in `default` can
name either; and what comes from a client in another namespace is put there as it is taken in, whatever it
holds. So one table keeps all namespaces apart, and `default` needs nothing for that.

In the log such a command stands `Within` its namespace, which each replica applies in the same way.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

from msgspec.structs import replace

from greenroom import wire
from greenroom.ending_messages import Unwatch, WatchSession
from greenroom.ids import DIGEST_BYTES
from greenroom.near_messages import GetNear, Unhold
from greenroom_cluster.shard.state.records import Command, Evict, Expire, Within

Owner: TypeAlias = str | tuple[str, str]
"""A user: the id alone in `default`, else with the namespace before it."""


def namespace_of(key: bytes) -> str:
    """Return the namespace of a session with this key, "" for `default`."""
    return key[DIGEST_BYTES:].decode()


def owner_of(key: bytes, user_id: str) -> Owner:
    """Return how the user of a session with this key is known."""
    return user_id if len(key) == DIGEST_BYTES else (namespace_of(key), user_id)


CLIENT_ID_BYTES = 16
"""The id of a client, which its namespace follows, if that is another than `default`."""


def client_in(namespace: str, client: bytes) -> bytes:
    """Return as whom a client of a namespace is known: the replies that are kept for it are of that, too."""
    return client + namespace.encode()


def name_behind(client: bytes) -> bytes:
    """Return the namespace of such a client as it stands there, empty for `default`."""
    return client[CLIENT_ID_BYTES:]


_READS = frozenset({wire.Get, wire.ListByUser, GetNear, Unhold, WatchSession, Unwatch})
# By type, for every request in such a namespace is asked.
_LOGGED = frozenset({*get_args(wire.Mutation), wire.DeleteByUser, wire.Clean})


def enclosed(request: Any, namespace: str) -> Any:
    """Return what a client in a namespace asks for, as the core takes it."""
    kind = type(request)
    if kind is wire.Get:  # most often, and by the shortest way
        return replace(request, digest=request.digest + namespace.encode())
    if kind in _LOGGED:
        return Within(namespace, request)
    return keyed(request, namespace) if kind in _READS else request


def keyed(request: Any, namespace: str) -> Any:
    """Return a request with the keys of a namespace in the place of digests and users."""
    change = _OTHERWISE.get(type(request))
    if change is None:
        return replace(request, digest=request.digest + namespace.encode())
    return change(request, namespace)


def _of_user(request: Any, namespace: str) -> Any:
    return replace(request, user_id=(namespace, request.user_id))


def _all_of_user(request: wire.DeleteByUser, namespace: str) -> Any:
    keep = request.keep and request.keep + namespace.encode()
    return replace(request, user_id=(namespace, request.user_id), keep=keep)


def _rotated(request: wire.Rotate, namespace: str) -> Any:
    suffix = namespace.encode()
    return replace(request, digest=request.digest + suffix, new_digest=request.new_digest + suffix)


def _let_go(request: Unhold | Unwatch, namespace: str) -> Any:
    suffix = namespace.encode()
    return replace(request, digests=tuple(digest + suffix for digest in request.digests))


_OTHERWISE: dict[type, Callable[[Any, str], Any]] = {
    wire.Rotate: _rotated,
    wire.DeleteByUser: _all_of_user,
    wire.ListByUser: _of_user,
    Unhold: _let_go,
    Unwatch: _let_go,
    wire.Clean: lambda request, _namespace: request,
}
"""What is not about the session with one digest alone."""


def bare(command: Any) -> Any:
    """Return a logged command by keys."""
    return keyed(command.command, command.namespace) if type(command) is Within else command


def is_named(command: Command) -> bool:
    """Whether a command reaches anything of another namespace than `default`."""
    if isinstance(command, Expire | Evict):
        return any(len(key) > DIGEST_BYTES for key in command.digests)
    return isinstance(command, Within)


class Usage:
    """How many sessions the namespaces other than `default` have here, and how many bytes these take."""

    __slots__ = ("by_namespace", "sessions", "stored_bytes")

    def __init__(self) -> None:
        self.by_namespace: dict[str, tuple[int, int]] = {}
        # In all of them.
        self.sessions = 0
        self.stored_bytes = 0

    def of(self, namespace: str) -> tuple[int, int]:
        """Return the sessions and bytes of one."""
        return self.by_namespace.get(namespace, (0, 0))

    def add(self, namespace: str, sessions: int, size_bytes: int) -> None:
        """Count more, or less."""
        before = self.of(namespace)
        self.sessions += sessions
        self.stored_bytes += size_bytes
        after = (before[0] + sessions, before[1] + size_bytes)
        if after[0]:
            self.by_namespace[namespace] = after
        else:
            self.by_namespace.pop(namespace, None)
