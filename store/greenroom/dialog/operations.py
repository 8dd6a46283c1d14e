"""Operations in flight, and what is known about their attempts.

The error of a failed mutation depends on one question: can any attempt have been applied? An attempt counts
from when its bytes are handed to a connection until a reply proves that it was refused. `maybe` remembers
attempts whose connection is gone, or that stand in a server's log, as it has said.
"""

from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.dialog.links import Lane, Link
from greenroom.ending_messages import WatchSession
from greenroom.near_messages import Held

NS_PER_MS = 1_000_000

Single: TypeAlias = wire.Get | wire.Mutation | WatchSession


class Kind(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The properties of one kind of operation.

    `finals` are the replies that end it, `Held` only for a client with a near cache. `harmless`: it is safe
    to repeat one whose outcome is unknown. `one_is_enough`: the first reply ends it, though it is on all
    shards.
    """

    name: str
    mutation: bool
    harmless: bool
    finals: frozenset[type]
    one_is_enough: bool = False


GET = Kind("get", mutation=False, harmless=True, finals=frozenset({wire.Session, wire.Missing, Held}))
WATCH = Kind("watch", mutation=False, harmless=True, finals=frozenset())  # see `watches`
CREATE = Kind("create", mutation=True, harmless=False, finals=frozenset({wire.Written, wire.Failed}))
UPDATE = Kind("update", mutation=True, harmless=True, finals=frozenset({wire.Written, wire.Failed}))
UPDATE_IF = Kind("update", mutation=True, harmless=False, finals=frozenset({wire.Written, wire.Failed}))
DELETE = Kind("delete", mutation=True, harmless=True, finals=frozenset({wire.Written, wire.Failed}))
PATCH = Kind("patch", mutation=True, harmless=True, finals=frozenset({wire.Session, wire.Failed, Held}))
PATCH_IF = Kind("patch", mutation=True, harmless=False, finals=frozenset({wire.Session, wire.Failed, Held}))
ROTATE = Kind("rotate", mutation=True, harmless=False, finals=frozenset({wire.Session, wire.Failed}))
DELETE_BY_HANDLE = Kind(
    "delete_by_handle", mutation=True, harmless=True, finals=frozenset({wire.Written, wire.Failed})
)
DELETE_BY_USER = Kind("delete_by_user", mutation=True, harmless=True, finals=frozenset({wire.Counted}))
CLEAN = Kind("clean", mutation=True, harmless=True, finals=frozenset({wire.Counted}))
LIST_BY_USER = Kind("list_by_user", mutation=False, harmless=True, finals=frozenset({wire.Listing}))
CHECK = Kind("check", mutation=False, harmless=True, finals=frozenset({wire.Listing}), one_is_enough=True)
CHECK_EVERY_SHARD = Kind("check", mutation=False, harmless=True, finals=frozenset({wire.Listing}))


class Operation(msgspec.Struct, eq=False):
    """One request about one session.

    `token` is the driver's handle of the caller. `link` is the connection on which the newest attempt is
    unanswered. `queue` is the waiting room in which the operation waits, if any. `first_ns` is when the
    oldest attempt that may still count was sent (0: none). `breaks` counts the connections that broke over
    it, by actor (None: none).
    """

    request: Single
    kind: Kind
    token: object
    deadline_ns: int
    link: Link | None = None
    size: int = 0
    first_ns: int = 0
    maybe: bool = False
    queue: dict[int, object] | None = None
    refusals: int = 0
    retry_ns: int = 0
    refused_by: Lane | None = None
    wait_version: int = 0
    reason: str = ""
    breaks: dict[Lane, int] | None = None
    moved: bool = False

    @property
    def uncertain(self) -> bool:
        """Whether an attempt may have been applied, or may yet be."""
        return self.maybe or self.link is not None


class Gathering(msgspec.Struct, eq=False):
    """One request that every shard must answer. Each primary is asked for its shards, under one request id.

    `asked` holds the unanswered attempts, at most one for each connection. `counted` sums `Counted` replies,
    `sessions` collects those of `Listing`s.
    """

    request: wire.Fanout
    kind: Kind
    token: object
    deadline_ns: int
    remaining: set[int] | None = None
    asked: dict[Link, tuple[int, ...]] = {}
    counted: int = 0
    sessions: list[wire.SessionHandle] = []
    answered: bool = False
    maybe: bool = False
    first_ns: int = 0
    refusals: int = 0
    retry_ns: int = 0
    reason: str = ""
    breaks: dict[Lane, int] | None = None
    link: None = None

    @property
    def uncertain(self) -> bool:
        """Whether some shard may have applied the request, or may yet."""
        return self.maybe or self.answered or bool(self.asked)

    def merged(self) -> wire.Reply:
        """Return the replies of all shards as one."""
        if not self.kind.mutation:
            return wire.Listing(self.request.request_id, (), tuple(self.sessions))
        return wire.Counted(self.request.request_id, ((0, self.counted),))


AnyOperation: TypeAlias = Operation | Gathering


def stamp(operation: AnyOperation, low: int, now_ns: int) -> None:
    """Prepare the operation's request for its next attempt: set the current low-watermark and its age.

    The age is 0 while no attempt that may still count was sent, else at least 1.
    """
    if not operation.kind.mutation:
        return
    age_ms = 0
    if operation.first_ns:
        age_ms = max(1, (now_ns - operation.first_ns) // NS_PER_MS)
    else:
        operation.first_ns = now_ns
    operation.request = msgspec.structs.replace(operation.request, low=low, age_ms=age_ms)
