"""What the JSON gateway of etcd is asked, and what it answers: the v3 API of etcd 3.4 to 3.6. Pure.

Keys and values travel as base64. Numbers of 64 bits come as strings. What is zero, false or empty is left out
of a reply, so every field has a default.

Source: etcd's `api/etcdserverpb/rpc.proto`, and "gRPC gateway" in its developer guide.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from greenroom.errors import GreenroomError

OPERATIONS_MAX = 128
"""Compares, and operations of each branch, that one transaction may have (`--max-txn-ops`)."""
REQUEST_BYTES_MAX = 1_500_000
"""A request may have a little more by default (`--max-request-bytes`)."""

PERMISSION_DENIED = 7
UNAUTHENTICATED = 16
_UNAVAILABLE = frozenset({1, 4, 8, 10, 13, 14})
"""Canceled, deadline exceeded, exhausted, aborted, internal, unavailable: another member may do better."""
_LESSOR_MOVED = "not primary lessor"
_LEASE_OVER = "requested lease not found"
_NOT_SIGNED_IN = ("invalid auth token", "user name is empty", "revision of auth store is old")

Reply = TypeVar("Reply")


class EtcdAwayError(GreenroomError):
    """Etcd did not answer, or cannot now. A transaction may have been applied nevertheless."""


class EtcdRefusedError(GreenroomError):
    """Etcd does not do this until something is changed; the text says what."""


class LeaseOverError(EtcdRefusedError):
    """The lease that a request names is over."""


class ForbiddenError(EtcdRefusedError):
    """Who has signed in may not do this with these keys."""


class SignedOutError(GreenroomError):
    """The token is not known to this member: sign in again."""


# --- requests ---------------------------------------------------------------------------------------------


class Compare(msgspec.Struct, frozen=True):
    """A condition of a transaction: the revision at which a key was created, or last changed; 0: never."""

    key: bytes
    target: Literal["CREATE", "MOD"]
    revision: int


class Range(msgspec.Struct, frozen=True):
    """Read a key, or all from it up to `end`, which is not read."""

    key: bytes
    end: bytes = b""


class Put(msgspec.Struct, frozen=True):
    """Set a key, which goes with a lease unless that is 0."""

    key: bytes
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    """Remove a key, or all from it up to `end`, which stays."""

    key: bytes
    end: bytes = b""


Operation: TypeAlias = Range | Put | Delete


def _key_range(request: Range | Delete) -> dict[str, Any]:
    return {"key": request.key, "range_end": request.end} if request.end else {"key": request.key}


def _operation(request: Operation) -> dict[str, Any]:
    match request:
        case Range():
            return {"request_range": _key_range(request)}
        case Delete():
            return {"request_delete_range": _key_range(request)}
        case Put():
            return {"request_put": {"key": request.key, "value": request.value, "lease": request.lease}}


def _condition(compare: Compare) -> dict[str, Any]:
    revision = "create_revision" if compare.target == "CREATE" else "mod_revision"
    return {
        "key": compare.key,
        "result": "EQUAL",
        "target": compare.target,
        revision: compare.revision,
    }


def range_body(request: Range) -> bytes:
    """Return the body that reads keys, linearizably, from `/v3/kv/range`."""
    return msgspec.json.encode(_key_range(request))


def transaction_body(
    compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
) -> bytes:
    """Return the body of a transaction for `/v3/kv/txn`. Raises ValueError if etcd would not take it."""
    if max(len(compares), len(success), len(failure)) > OPERATIONS_MAX:
        raise ValueError(f"a transaction has {OPERATIONS_MAX} compares and operations at most")
    body = msgspec.json.encode(
        {
            "compare": [_condition(compare) for compare in compares],
            "success": [_operation(request) for request in success],
            "failure": [_operation(request) for request in failure],
        }
    )
    if len(body) * 3 // 4 > REQUEST_BYTES_MAX:
        raise ValueError(f"a transaction of {len(body):,} bytes is more than etcd takes by default")
    return body


def watch_body(request: Range, start_revision: int) -> bytes:
    """Return the body that watches keys from a revision on, with word of progress, at `/v3/watch`."""
    return msgspec.json.encode(
        {
            "create_request": {
                **_key_range(request),
                "start_revision": start_revision,
                "progress_notify": True,
            }
        }
    )


def end_of(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with a prefix."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


# --- replies ----------------------------------------------------------------------------------------------


class Header(msgspec.Struct, frozen=True):
    """Who has answered, and when: the revision of the store, the term of the members' leader."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


class KeyValue(msgspec.Struct, frozen=True):
    """A key, its value, and the revisions at which it was created and last changed."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0


class Ranged(msgspec.Struct, frozen=True):
    """The keys that were asked for."""

    header: Header = Header()
    kvs: tuple[KeyValue, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """What one operation of a transaction gave; only what was read is of interest."""

    response_range: Ranged = Ranged()


class Transacted(msgspec.Struct, frozen=True):
    """Whether all compares held, and what the operations of that branch gave, in order."""

    header: Header = Header()
    succeeded: bool = False
    responses: tuple[Result, ...] = ()


class GivenLease(msgspec.Struct, frozen=True, rename={"id": "ID", "ttl_seconds": "TTL"}):
    """A lease and for how many seconds it was given; 0: there is no such lease."""

    header: Header = Header()
    id: int = 0
    ttl_seconds: int = 0


class Event(msgspec.Struct, frozen=True):
    """A change of a key; of one that was removed only the key is there."""

    kv: KeyValue = KeyValue()
    type: Literal["PUT", "DELETE"] = "PUT"


class Watched(msgspec.Struct, frozen=True):
    """A part of a watch: changes, or the word of progress that there are none up to the header's revision.

    `canceled`: nothing more comes, though the connection stays open. `compact_revision` is then the oldest
    revision that can be watched, if what was asked for is older.
    """

    header: Header = Header()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[Event, ...] = ()


class SignedIn(msgspec.Struct, frozen=True):
    """The token of a user."""

    header: Header = Header()
    token: str = ""


class Version(msgspec.Struct, frozen=True):
    """The release of a member, and the one whose rules all members keep."""

    etcdserver: str
    etcdcluster: str = ""


class _Failure(msgspec.Struct, frozen=True):
    """An error, whose fields have changed from release to release."""

    code: int = 0
    grpc_code: int = 0
    message: str = ""
    error: str = ""


class _Part(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw()
    error: _Failure | None = None


def decoded(body: bytes, kind: type[Reply]) -> Reply:
    """Return a reply. Raises EtcdAwayError if it is none: something else listens there, or it was cut off."""
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.MsgspecError as error:
        raise EtcdAwayError(f"the answer is not one of etcd's gateway: {error}") from None


def decoded_part(line: bytes, kind: type[Reply]) -> Reply:
    """Return one part of a stream. Raises as `decoded` and `raise_failure` do."""
    part = decoded(line, _Part)
    if part.error is not None:
        _raise(part.error)
    return decoded(bytes(part.result), kind)


def raise_failure(body: bytes, status: int) -> None:
    """Raise what a reply with an HTTP status of failure stands for.

    EtcdAwayError: another member, or a later time, may do better. SignedOutError: sign in again.
    LeaseOverError: ask for another lease. ForbiddenError, EtcdRefusedError: none of that helps.
    """
    try:
        failure = msgspec.json.decode(body, type=_Failure, strict=False)
    except msgspec.MsgspecError:
        raise EtcdAwayError(
            f"HTTP status {status}, which is not from etcd's gateway. Is it etcd's port for clients (by "
            "default 2379, its peers use another), and if that speaks TLS, does --store begin with etcds://?"
        ) from None
    _raise(failure)


def _raise(failure: _Failure) -> None:
    code, text = failure.code or failure.grpc_code, failure.message or failure.error
    if code == UNAUTHENTICATED or any(each in text for each in _NOT_SIGNED_IN):
        raise SignedOutError(text)
    if code in _UNAVAILABLE or _LESSOR_MOVED in text:
        raise EtcdAwayError(text)
    if _LEASE_OVER in text:
        raise LeaseOverError(text)
    if code == PERMISSION_DENIED:
        raise ForbiddenError(text)
    raise EtcdRefusedError(text)
