"""Sessions as lines of JSON, for other programs: one object a line, and nothing lost of what a session holds.

A value that JSON lacks is an object with `$type`, a `text` for people, and the value in msgpack, of which
alone it is read again. So is a dict whose keys are not all texts, or one of whose keys begins with `$`: its
`items` are pairs. No backup holds a session's id: `digest` and `point` stand for it, as in the cluster.
"""

import base64
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec.msgpack import Ext

from greenroom import wire
from greenroom.codec import decode_value
from greenroom.errors import GreenroomError, UsageError
from greenroom.fields import check_data_size, checked_label, checked_user_id
from greenroom.identities import NAME_PATTERN
from greenroom.ids import DIGEST_BYTES, POINT_BITS
from greenroom.scan.bounds import MalformedError
from greenroom.scan.checks import check_data
from greenroom_cluster.shard.state.namespaces import namespace_of
from greenroom_cluster.shard.state.records import StoredSession

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MICROS_MIN = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MICROS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


_Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    digest: str
    point: int
    user_id: str | None
    label: str
    created: _Moment
    expires: _Moment
    absolute_expires: _Moment | None
    data: dict[str, Any]
    namespace: Annotated[str, msgspec.Meta(pattern=f"^({NAME_PATTERN})?$")] = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def encode_line(stored: StoredSession) -> bytes:
    """Return a session as a line of JSON, without its version: one that is restored gets a new one."""
    state = stored.state
    line = _Line(
        digest=stored.digest[:DIGEST_BYTES].hex(),
        point=state.point,
        user_id=state.user_id,
        label=state.label,
        created=_moment(state.created_us),
        expires=_moment(state.expires_us),
        absolute_expires=None if state.absolute_us is None else _moment(state.absolute_us),
        data=_shown(msgspec.msgpack.decode(state.data)),
        namespace=namespace_of(stored.digest),
    )
    return _encoder.encode(line) + b"\n"


def decode_line(line: bytes, number: int) -> StoredSession:
    """Return the session in the line of that number. Raises UsageError, without values, if none."""
    try:
        return _session(_decoder.decode(line))
    except msgspec.DecodeError as error:
        # It names a field, a type or a place; only a field that should not be there is out of the line.
        reason = "it has a field too many" if "unknown field" in str(error) else str(error)
    except (
        *(msgspec.MsgspecError, GreenroomError, MalformedError, RecursionError),
        *(ValueError, TypeError, LookupError, ArithmeticError),
    ):
        reason = "a field has a value that no session can have"
    # Raised out here so that no exception with a value in it hangs on the error as its context.
    raise UsageError(
        f"line {number} is not a session as `greenroom export` writes it ({reason}): nothing is imported"
    )


def _session(line: _Line) -> StoredSession:
    digest = bytes.fromhex(line.digest)
    data = msgspec.msgpack.encode(_read(line.data))
    # As a cluster checks it, which keeps more than can be read.
    check_data(data)
    check_data_size(data)
    state = wire.SessionState(
        version=0,
        expires_us=_micros(line.expires),
        created_us=_micros(line.created),
        absolute_us=None if line.absolute_expires is None else _micros(line.absolute_expires),
        user_id=checked_user_id(line.user_id),
        label=checked_label(line.label),
        point=line.point,
        data=data,
    )
    if len(digest) != DIGEST_BYTES or not 0 <= line.point < 1 << POINT_BITS:
        raise ValueError("no digest, or no point")
    return StoredSession(digest + line.namespace.encode(), state)


def _moment(micros: int) -> datetime:
    """Return a moment; one that no calendar has is shown as the last or first that it has."""
    return _EPOCH + timedelta(microseconds=min(max(micros, _MICROS_MIN), _MICROS_MAX))


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _shown(value: Any) -> Any:
    """Return a value, decoded from msgpack with its extensions left as they are, as JSON has it."""
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _shown(each) for key, each in value.items()}
        return {"$type": "dict", "items": [[key, _shown(each)] for key, each in value.items()]}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, bytes | Ext) or (isinstance(value, float) and not math.isfinite(value)):
        encoded = msgspec.msgpack.encode(value)
        kind, text = _read_by_people(encoded)
        return {"$type": kind, "text": text, "msgpack": base64.b64encode(encoded).decode()}
    return value


def _read_by_people(encoded: bytes) -> tuple[str, str]:
    """Return the kind of a value and what it says; a cluster also keeps values that have no meaning."""
    try:
        known = decode_value(encoded)
        return type(known).__name__, known.hex() if isinstance(known, bytes) else str(known)
    except (GreenroomError, ValueError, ArithmeticError):
        return "unreadable", ""


def _read(value: Any) -> Any:
    """Return what `_shown` was given."""
    if isinstance(value, list):
        return [_read(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "$type" not in value:
        return {key: _read(each) for key, each in value.items()}
    if value["$type"] == "dict":
        return {key: _read(each) for key, each in value["items"]}
    return msgspec.msgpack.decode(base64.b64decode(value["msgpack"], validate=True))
