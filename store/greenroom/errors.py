"""Everything that greenroom raises, by whose fault it is.

    GreenroomError
    ├─ UsageError              the caller's mistake
    │  ├─ UnsupportedError      this store does not offer that operation
    │  └─ PathThroughListError  a patch's path runs through a list that is stored
    ├─ SessionError            the state of the session forbids it
    │  ├─ SessionExistsError
    │  ├─ SessionNotFoundError
    │  └─ VersionConflictError
    ├─ UnavailableError        not applied; safe to retry
    │  └─ StoreFullError        no memory is left for what would grow
    ├─ OutcomeUnknownError     sent and not answered in time; may have been applied
    └─ ProtocolError
       ├─ LocalProtocolError   our bug
       └─ RemoteProtocolError  theirs
          └─ UnreadableSessionError  one stored session; the store and all others are well
    InvariantError             a bug in the core; an AssertionError, outside the tree

Each message says what to do.
"""

from datetime import datetime


class GreenroomError(Exception):
    """Base of every error that a caller may want to handle."""


class UsageError(GreenroomError):
    """The caller's mistake: a bad id, a value too large or not storable, a wrong configuration."""


class UnsupportedError(UsageError):
    """The store does not offer this operation; `features` names those it does."""


class PathThroughListError(UsageError):
    """A path of a patch runs through a list, which is one value: use `modify`. Nothing was changed."""


class SessionError(GreenroomError):
    """The operation was decided, and the state of the session forbids it."""


class SessionExistsError(SessionError):
    """A live session has this id already."""


class SessionNotFoundError(SessionError):
    """There is no live session with this id: never created, expired, deleted or rotated away."""


class VersionConflictError(SessionError):
    """The session changed since the version, or the values, that the caller expected."""


class UnavailableError(GreenroomError):
    """The operation was not applied, and repeating it is safe."""


class StoreFullError(UnavailableError):
    """The cluster has no memory left for this write; reads, deletes and what does not grow go on.

    Told at once: trying again is of use only once sessions have ended or the cluster has more memory.
    """


class OutcomeUnknownError(GreenroomError):
    """The operation was sent and not answered in time: it may have been applied, now or later.

    `harmless_to_repeat` says whether sending it again can do damage: True for deletes and for writes of whole
    values, False for creates and for conditional changes.
    """

    def __init__(self, message: str, *, harmless_to_repeat: bool) -> None:
        super().__init__(message)
        self.harmless_to_repeat = harmless_to_repeat


class ProtocolError(GreenroomError):
    """Bytes or messages that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """This side was about to break the protocol: a bug in greenroom."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol; only its connection ends."""


class UnreadableSessionError(RemoteProtocolError):
    """What is stored for one session cannot be read here; the store itself is well, and so are all others.

    `newer` tells that it may be sound: it holds a kind of value that a later version may have written, as in
    the middle of a rolling upgrade. `expires` is when the session ends, if the store can tell. The message
    holds neither the id nor any data.
    """

    def __init__(self, message: str, *, newer: bool = False, expires: datetime | None = None) -> None:
        super().__init__(message)
        self.newer = newer
        self.expires = expires


class InvariantError(AssertionError):
    """The replication core found itself in a state that must not exist: a bug, so it stops before it lies."""
