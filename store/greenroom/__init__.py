"""Server-side web sessions for async Python, under asyncio and trio.

>>> store = store_from_url("greenroom://127.0.0.1:7400")  # or SqliteStore("sessions.db"), or MemoryStore()
>>> session = SessionData(session_id=new_session_id(), expires=datetime.now(UTC) + timedelta(hours=1))
>>> await store.create(session)
>>> await store.patch(session.session_id, set={("cart", "sku-1"): 2})

A table of contents: every name below is public.
"""

from typing import TYPE_CHECKING, Any

from greenroom.endings import Ended
from greenroom.errors import (
    GreenroomError,
    InvariantError,
    LocalProtocolError,
    OutcomeUnknownError,
    PathThroughListError,
    ProtocolError,
    RemoteProtocolError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
    StoreFullError,
    TooManyWatchesError,
    UnavailableError,
    UnreadableSessionError,
    UnsupportedError,
    UsageError,
    VersionConflictError,
)
from greenroom.ids import new_session_id
from greenroom.memory import MemoryStore
from greenroom.sessions import (
    ABSENT,
    UNCHANGED,
    BaseSessionStore,
    SessionData,
    SessionInfo,
)
from greenroom.urls import store_from_url

if TYPE_CHECKING:
    from greenroom.cluster_store import ClusterStore
    from greenroom.sqlite_store import SqliteStore

__all__ = [
    "ABSENT",
    "UNCHANGED",
    "BaseSessionStore",
    "ClusterStore",
    "Ended",
    "GreenroomError",
    "InvariantError",
    "LocalProtocolError",
    "MemoryStore",
    "OutcomeUnknownError",
    "PathThroughListError",
    "ProtocolError",
    "RemoteProtocolError",
    "SessionData",
    "SessionError",
    "SessionExistsError",
    "SessionInfo",
    "SessionNotFoundError",
    "SqliteStore",
    "StoreFullError",
    "TooManyWatchesError",
    "UnavailableError",
    "UnreadableSessionError",
    "UnsupportedError",
    "UsageError",
    "VersionConflictError",
    "new_session_id",
    "store_from_url",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a process that keeps sessions in memory needs no network code, and no SQLite."""
    if name == "ClusterStore":
        from greenroom.cluster_store import ClusterStore

        return ClusterStore
    if name == "SqliteStore":
        from greenroom.sqlite_store import SqliteStore

        return SqliteStore
    if name == "__version__":
        from importlib.metadata import version

        return version("greenroom")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
