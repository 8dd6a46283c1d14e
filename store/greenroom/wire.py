"""The messages between clients, nodes and actors.

A message is a msgpack array whose first element is its tag, a frozen `msgspec.Struct` that cyclic garbage
collection leaves out: none can form a cycle. Messages travel in frames (`greenroom.framing`). Tags are
grouped: 1-9 handshake, 10-39 requests of clients, 40-59 replies, 60-69 the cluster map. Tags 70 and up belong
to `greenroom_cluster` (coordination, peers, log records). Units: times are integer microseconds since
1970-01-01 UTC (`_us`), ages are milliseconds (`_ms`). A digest is BLAKE2b-256 of the session id: ids
themselves never cross the wire. A point is the session's 16-bit routing point. A path is a tuple of dict
keys. A stored value or session data is its msgpack encoding.

Exactly once (RIFL, Lee et al., SOSP 2015): a mutation carries `request_id`, unique within the hello's dialog,
`low`, the lowest id that this still waits for, and `age_ms`, since the first attempt was sent (0 on that).
"""

from enum import IntEnum
from typing import Annotated, Any, TypeAlias

import msgspec

from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, SHARDS_MAX, ClusterMap, MapDelta
from greenroom.known_coordinators import KnownCoordinators
from greenroom.namespace_use import NamespaceUse
from greenroom.near_use import NearUse
from greenroom.testimony import Testimony
from greenroom.watch_use import WatchUse

PROTOCOL_VERSION = 4  # the newest, which two sides of this release speak
PROTOCOL_VERSION_MIN = 3  # the oldest that this release still speaks (see `greenroom.negotiation`)
FEATURE_COPIES = "copies"  # an actor lets operators copy its shards, and freeze it
FEATURE_NAMESPACES = "namespaces"  # an actor takes from its peers what belongs to namespaces
FEATURE_NEAR = "near"  # an actor holds sessions for clients that keep them
FEATURE_ENDINGS = "endings"  # an actor tells clients when sessions end
FEATURES: tuple[str, ...] = (FEATURE_COPIES, FEATURE_ENDINGS, FEATURE_NAMESPACES, FEATURE_NEAR)
"""What this release has besides its version, sorted; used if the other side has it too."""
FEATURES_MAX, FEATURE_CHARS_MAX = 16, 32
ROUTING_VERSION = 1

ROLE_CLIENT, ROLE_PEER = "client", "peer"
ROLE_ADMIN, ROLE_OPERATOR = "admin", "operator"

Key: TypeAlias = str | int
PATH_KEYS_MAX = 64
"""The most keys that a path may have: one for each level of session data."""
Path: TypeAlias = Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=PATH_KEYS_MAX)]
PathValue: TypeAlias = tuple[Path, bytes]

# The limits of a request are checked where it is decoded: one beyond them ends its connection, and never
# becomes a session that others could not read. Times lie in the years 1 to 9999. Lengths of texts count
# characters here; their bytes are counted where a request is admitted.
Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
UserId: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
Label: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
Feature: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=FEATURE_CHARS_MAX)]
Features: TypeAlias = Annotated[tuple[Feature, ...], msgspec.Meta(max_length=FEATURES_MAX)]
Shards: TypeAlias = Annotated[tuple[int, ...], msgspec.Meta(max_length=SHARDS_MAX)]
PATHS_MAX = 1024
"""The most paths that a patch may name in all, as admission checks; a field with more ends its connection."""
Values: TypeAlias = Annotated[tuple[PathValue, ...], msgspec.Meta(max_length=PATHS_MAX)]
Paths: TypeAlias = Annotated[tuple[Path, ...], msgspec.Meta(max_length=PATHS_MAX)]
TIME_US_MAX = 253_402_300_799_999_999
TimeUs: TypeAlias = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=TIME_US_MAX)]


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of every message."""


# --- handshake -------------------------------------------------------------------------------------------


class Hello(Frame, frozen=True, tag=1):
    """First frame in each direction.

    `sender` is the sender's 128-bit identity: a client's dialog id, an actor's incarnation. `target` is the
    incarnation that the sender means to reach (empty: any). `auth`, which no repr shows, is what proves who
    that is (`greenroom.proofs`, `greenroom.tokens`). `clock_us` is that of a server, 0 if it sends none.

    `protocol` is the lowest version that the sender speaks and `protocol_max` the highest, 0 from a release
    that speaks one only. `features` are names of what it has beside its version, sorted.
    """

    protocol: int
    routing: int
    cluster: str
    role: str
    sender: bytes
    target: bytes = b""
    auth: bytes = b""
    clock_us: int = 0
    protocol_max: int = 0
    features: Features = ()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "auth"]

    def __repr__(self) -> str:
        return f"Hello({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Goodbye(Frame, frozen=True, tag=2):
    """The connection is refused or ends; `message` says why and what to do. Last frame before the close."""

    code: str
    message: str


# --- requests --------------------------------------------------------------------------------------------


class Get(Frame, frozen=True, tag=10):
    """Read one session. Answered by `Session` or `Missing`."""

    request_id: int
    point: int
    digest: Digest


class Create(Frame, frozen=True, tag=11):
    """Store a new session. Answered by `Written`, `Failed(EXISTS | TOO_LARGE | INVALID | FULL)`."""

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest
    user_id: UserId | None
    created_us: TimeUs
    expires_us: TimeUs
    absolute_us: TimeUs | None
    label: Label
    data: bytes


class Update(Frame, frozen=True, tag=12):
    """Replace what may change of a session.

    Answered by `Written`, `Failed(NOT_FOUND | CONFLICT | TOO_LARGE | INVALID | FULL)`.
    """

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest
    user_id: UserId | None
    expires_us: TimeUs
    label: Label
    data: bytes
    version: int | None


class Delete(Frame, frozen=True, tag=13):
    """Remove a session; absent is fine. Answered by `Written` with version 0."""

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest


class Patch(Frame, frozen=True, tag=14):
    """Change paths of a session's data.

    Answered by `Session`, `Failed(NOT_FOUND | CONFLICT | TOO_LARGE | INVALID | FULL)`.
    `user` is None to leave the user as it is, else a tuple of the new user id (or None).
    `expires_us` None leaves the lifetime as it is. In `expect`, empty bytes demand that the path is absent.
    """

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest
    set: Values
    unset: Paths
    expect: Values
    user: tuple[UserId | None] | None
    expires_us: TimeUs | None


class Rotate(Frame, frozen=True, tag=15):
    """Kill the old id and give its session to the new one, in one step.

    Answered by `Session`, `Failed(NOT_FOUND | EXISTS | TOO_LARGE | INVALID | FULL)`.
    """

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest
    new_digest: Digest
    set: Values
    unset: Paths
    user: tuple[UserId | None] | None
    expires_us: TimeUs | None


class DeleteByHandle(Frame, frozen=True, tag=16):
    """Remove the user's session that is listed as `digest`; absent is fine. In logs, its own digest."""

    request_id: int
    low: int
    age_ms: int
    point: int
    digest: Digest
    user_id: UserId


class DeleteByUser(Frame, frozen=True, tag=17):
    """Remove the user's sessions on these shards, but for `keep` (a digest or empty). `Counted`.

    `removed` has a meaning in logs only: how many sessions the primary removed for it before.
    """

    request_id: int
    low: int
    age_ms: int
    user_id: UserId
    keep: Annotated[bytes, msgspec.Meta(max_length=32)]
    shards: Shards
    removed: int | None = None


class ListByUser(Frame, frozen=True, tag=18):
    """The user's sessions on these shards, at most `limit`. Answered by `Listing`."""

    request_id: int
    user_id: UserId
    limit: int
    shards: Shards


class Clean(Frame, frozen=True, tag=19):
    """Remove what has expired on these shards. Answered by `Counted`.

    `removed` has a meaning in logs only: the primary did it before, and this is the count.
    """

    request_id: int
    low: int
    age_ms: int
    shards: Shards
    removed: int | None = None


class Inspect(Frame, frozen=True, tag=20):
    """An operator asks an actor for the state of its replicas. Answered by `Inspection`."""

    request_id: int


class Subscribe(Frame, frozen=True, tag=21):
    """Send the cluster map and every later change of it. Answered by `MapFull` once, then `MapChange`s.

    `lineage` and `version` name the map that the subscriber already holds (0, 0: none). `epochs` are the
    epochs of its shards, in order, where a coordinator is asked: one restored from an older copy counts its
    versions anew from there, so a version alone does not tell which of two maps was decided later. `identity`
    is that of the map's cluster, also where a coordinator is asked, and so is the `testimony` of an actor;
    None: it tells nothing.
    """

    lineage: int
    version: int
    epochs: Annotated[tuple[int, ...], msgspec.Meta(max_length=SHARDS_MAX)] = ()
    identity: Annotated[bytes, msgspec.Meta(max_length=CLUSTER_IDENTITY_BYTES)] = b""
    testimony: Testimony | None = None


class DropRecord(Frame, frozen=True, tag=22):
    """An operator has an actor drop the record at which a shard is suspended, named as `Inspection` shows it.

    Answered by `Written(0)`, `Failed(NOT_FOUND)` if the shard is not suspended there at that record,
    `Failed(CONFLICT)` while the actor that the record stopped may still be alive.
    """

    request_id: int
    shard: int
    epoch: int
    sequence: int


# --- replies ---------------------------------------------------------------------------------------------


class FailureCode(IntEnum):
    """Why a command was refused.

    The refusal is itself a logged, replicated decision, except FULL, and TOO_LARGE of a `Create` or `Update`:
    those are decided before anything is logged. A repeat never gets FULL, because its first attempt may still
    be on its way.
    """

    EXISTS = 1
    NOT_FOUND = 2
    CONFLICT = 3
    TOO_LARGE = 4
    INVALID = 5
    FULL = 6


class SessionHeading(Frame, frozen=True):
    """A session without its data. A read looks only at the beginning, up to the expiry."""

    version: int
    expires_us: int
    created_us: int
    absolute_us: int | None
    user_id: str | None
    label: str
    point: int


class SessionState(SessionHeading, frozen=True):
    """A session as it stands, its data encoded."""

    data: bytes


class Session(Frame, frozen=True, tag=40):
    """The session as it stands after the request."""

    request_id: int
    state: SessionState


class EncodedSession(Frame, frozen=True, tag=40):
    """A `Session` on its way out, whose state is sent as it is stored."""

    request_id: int
    state: msgspec.Raw


class Missing(Frame, frozen=True, tag=41):
    """There is no such session."""

    request_id: int


class Written(Frame, frozen=True, tag=42):
    """The command took effect; the session now has this version (0: none)."""

    request_id: int
    version: int


class Failed(Frame, frozen=True, tag=43):
    """The command was refused, see `FailureCode`. It changed nothing."""

    request_id: int
    code: int
    detail: str = ""


class Redirect(Frame, frozen=True, tag=44):
    """Not the serving primary of that shard: follow the map to at least `map_version`.

    `appended` says that this request stands in a log and may yet take effect; a repeat under the same request
    id is harmless either way.
    """

    request_id: int
    map_version: int
    appended: bool = False


class Overloaded(Frame, frozen=True, tag=45):
    """Not applied: a limit was reached. `reason` names the limit."""

    request_id: int
    reason: str


class Unknowable(Frame, frozen=True, tag=46):
    """The shard cannot tell whether the first attempt was applied.

    It may have forgotten this client since, or it knows the request id from another command.
    """

    request_id: int
    reason: str


class SessionHandle(Frame, frozen=True):
    """One entry of a listing; of `listed`, see `greenroom.ids.listed_as`."""

    point: int
    listed: bytes
    version: int
    created_us: int
    expires_us: int
    label: str


class Listing(Frame, frozen=True, tag=47):
    """Sessions of a user on the shards that answered; shards not named must be asked again."""

    request_id: int
    shards: tuple[int, ...]
    sessions: tuple[SessionHandle, ...]


class Counted(Frame, frozen=True, tag=48):
    """(shard, how many) for each shard that answered; shards not named must be asked again."""

    request_id: int
    counts: tuple[tuple[int, int], ...]


class SuspendedRecord(Frame, frozen=True):
    """The record at which a shard is suspended; `following` more wait behind it."""

    epoch: int
    sequence: int
    kind: str
    size_bytes: int
    following: int


class ReplicaState(Frame, frozen=True):
    """One replica as its actor sees it.

    `proposes`: not decided yet. `join_refusal`: why the newest could not join. Clients keep `held` sessions.
    `join_progress`: how many sessions of a copy under way were sent, and how many there are.
    A copy on disk has the role "none" until its worth is known; `epoch` and `appended`: its last record.
    """

    shard: int
    epoch: int
    role: str
    serving: bool
    sessions: int
    stored_bytes: int
    appended: int
    committed: int
    joining: tuple[bytes, ...] = ()
    proposes: str = ""
    suspended: SuspendedRecord | None = None
    join_refusal: str = ""
    join_refused_by: str = ""
    join_bytes: int = 0
    held: int = 0
    join_progress: tuple[int, int] = (0, 0)


class Inspection(Frame, frozen=True, tag=49):
    """The replicas of one actor, and its memory: counted, not used, and its `--memory-max`.

    The rest, neither counted nor free, is what the process itself takes. `grantable_bytes` of the free memory
    are in no one's share. `evicted`: how many sessions its primaries ended to make room. `refusing`: slots of
    actors without memory, for which they refused growth lately. `namespaces`: those with sessions here, or a
    quota by name. `coordinator_away_seconds`: 0 while connected; None from a version that does not say, like
    `coordinators`. `excess_bytes`: how far its disk took it over its bound. `disk_short`: it is nearly full.
    """

    request_id: int
    incarnation: bytes
    replicas: tuple[ReplicaState, ...]
    coordinator_away_seconds: float | None = None
    used_bytes: int = 0
    free_bytes: int = 0
    memory_bytes_max: int = 0
    evicted: int = 0
    grantable_bytes: int = 0
    refusing: tuple[str, ...] = ()
    namespaces: tuple[NamespaceUse, ...] = ()
    coordinators: KnownCoordinators | None = None
    near: NearUse = NearUse()
    watches: WatchUse = WatchUse()
    excess_bytes: int = 0
    disk_short: bool = False


# --- the cluster map -------------------------------------------------------------------------------------


class MapFull(Frame, frozen=True, tag=60):
    """The whole cluster map."""

    map: ClusterMap


class MapChange(Frame, frozen=True, tag=61):
    """What changed since the map version `delta.base`."""

    delta: MapDelta


Mutation: TypeAlias = Create | Update | Delete | Patch | Rotate | DeleteByHandle
Fanout: TypeAlias = DeleteByUser | ListByUser | Clean
Request: TypeAlias = Get | Mutation | Fanout | Inspect | DropRecord
ClientMessage: TypeAlias = Hello | Request | Subscribe
_WithoutSession: TypeAlias = (
    Missing | Written | Failed | Redirect | Overloaded | Unknowable | Listing | Counted | Inspection
)
Reply: TypeAlias = Session | _WithoutSession
EncodedReply: TypeAlias = EncodedSession | _WithoutSession  # the same on their way out

ServerMessage: TypeAlias = Hello | Goodbye | Reply | MapFull | MapChange
