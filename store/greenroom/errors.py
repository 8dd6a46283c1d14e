"""All exceptions of greenroom, by whose fault they are.

    GreenroomError
    ├─ UsageError              the caller's mistake
    │  ├─ UnsupportedError      this store does not offer that operation
    │  └─ PathThroughListError  a patch's path runs through a stored list
    ├─ SessionError            the state of the session forbids it
    │  ├─ SessionExistsError
    │  ├─ SessionNotFoundError
    │  └─ VersionConflictError
    ├─ UnavailableError        not applied; safe to retry
    │  ├─ StoreFullError        no memory, or no quota, is left for growth
    │  └─ TooManyWatchesError   more sessions would be watched than the store may
    ├─ OutcomeUnknownError     sent but not answered in time; may have been applied
    └─ ProtocolError
       ├─ LocalProtocolError   this side's bug
       └─ RemoteProtocolError  the other side's bug
          └─ UnreadableSessionError  one stored session; the store and all others are fine
    InvariantError             a bug in the core; an AssertionError, outside the tree

Each message says what to do.
"""

from datetime import datetime


class GreenroomError(Exception):
    """Base class of every error that a caller may want to handle."""


class UsageError(GreenroomError):
    """The caller made a mistake: a bad id, a value too large or not storable, a wrong configuration."""


class UnsupportedError(UsageError):
    """The store does not offer this operation; `features` names those that it offers."""


class PathThroughListError(UsageError):
    """A path of a patch runs through a list, which is one value: use `modify`. Nothing was changed."""


class SessionError(GreenroomError):
    """The state of the session forbids the operation; this is final."""


class SessionExistsError(SessionError):
    """A live session has this id already."""


class SessionNotFoundError(SessionError):
    """There is no live session with this id: never created, expired, deleted or rotated away."""


class VersionConflictError(SessionError):
    """The session no longer has the version or the values that the caller expected."""


class UnavailableError(GreenroomError):
    """The operation was not applied, and repeating it is safe."""


class StoreFullError(UnavailableError):
    """The cluster has no memory left for this write, or the app's namespace is at its quota.

    Reads, deletes and writes that grow nothing go on. Raised at once: a retry helps only after sessions have
    ended, or an operator has given the cluster more memory, or the namespace a larger quota.
    """


class TooManyWatchesError(UnavailableError):
    """The endings of more sessions would be watched than `watches_max` of the store allows."""


class OutcomeUnknownError(GreenroomError):
    """The operation was sent but not answered in time: it may have been applied, or may still be.

    `harmless_to_repeat` says whether it is safe to send again: True for deletes and for writes of whole
    values, False for creates and for conditional changes.
    """

    def __init__(self, message: str, *, harmless_to_repeat: bool) -> None:
        super().__init__(message)
        self.harmless_to_repeat = harmless_to_repeat


class ProtocolError(GreenroomError):
    """The protocol does not allow these bytes or messages."""


class LocalProtocolError(ProtocolError):
    """This side was about to break the protocol: a bug in greenroom."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol; only its connection ends."""


class UnreadableSessionError(RemoteProtocolError):
    """One stored session cannot be read here; the store and all other sessions are fine.

    `newer` means that it may be sound: it holds a kind of value that a later version may have written, as
    during a rolling upgrade. `expires` is when the session ends, if the store knows. The message holds
    neither the id nor any data.
    """

    def __init__(self, message: str, *, newer: bool = False, expires: datetime | None = None) -> None:
        super().__init__(message)
        self.newer = newer
        self.expires = expires


class InvariantError(AssertionError):
    """The replication core reached an impossible state: a bug. It stops rather than give a wrong answer."""
