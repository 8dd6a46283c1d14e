"""The records of the log, each a command that the primary stamped.

Commands of clients are logged as they came over the wire. Three more exist only in logs: `Expire`,
`ForgetClients` and `Evict` are decisions of the primary itself, logged so that all replicas carry them out at
the same point.
"""

from typing import Annotated, Any, TypeAlias, get_args

import msgspec

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom.identities import NAME_CHARACTERS_MAX
from greenroom.ids import DIGEST_BYTES


class Expire(wire.Frame, frozen=True, tag=70):
    """Remove those of these sessions that have expired at the record's shard time."""

    digests: tuple[bytes, ...]


class ForgetClients(wire.Frame, frozen=True, tag=71):
    """Forget these clients and their kept replies, except clients that wrote after `silent_since_us`.

    Such a write may stand in the log between the check of the clients and this record.
    """

    clients: tuple[bytes, ...]
    silent_since_us: int


class Evict(wire.Frame, frozen=True, tag=72):
    """Remove those of these sessions that have no user.

    One may have got a user between the check and this record. This is logged only if `eviction` is set, and
    every recipient of the log can read it (`roles.releases`).
    """

    digests: tuple[bytes, ...]


Answered: TypeAlias = wire.Mutation | wire.DeleteByUser | wire.Clean
"""The commands whose reply is kept."""


class Within(wire.Frame, frozen=True, tag=73):
    """A client's command in a namespace other than `default`, as it came: see `namespaces`."""

    namespace: str
    command: Answered

    @property
    def request_id(self) -> int:
        """The id of the request."""
        return self.command.request_id

    @property
    def low(self) -> int:
        """The lowest request id that the client still waits for."""
        return self.command.low

    @property
    def age_ms(self) -> int:
        """How long ago the first attempt was sent."""
        return self.command.age_ms


Command: TypeAlias = Answered | Within | Expire | ForgetClients | Evict

Key: TypeAlias = Annotated[
    bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES + NAME_CHARACTERS_MAX)
]
"""What a table knows a session by: its digest, with the namespace behind it unless that is `default`."""

KINDS: dict[type, tuple[int, bool]] = {
    kind: (kind.__struct_config__.tag, "digest" in kind.__struct_fields__) for kind in get_args(Answered)
}
"""By type: the tag, and whether the command is about one session."""


def asked(command: Answered) -> tuple[int, bytes]:
    """Return what a command asks for: its kind, and the digest or user that it is about.

    Not a hash of all of it, which would cost over a hundredth of a write. A client that names the same digest
    could read that session anyway, so nobody is shown what they must not see.
    """
    kind, of_session = KINDS[type(command)]
    if of_session:
        return kind, command.digest  # type: ignore[union-attr]  # it has one
    if not isinstance(command, wire.DeleteByUser):
        return kind, b""
    user: Any = command.user_id
    # By keys it is a pair.
    return kind, user.encode() if isinstance(user, str) else "\0".join(user).encode()


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of a shard's log. `client` is empty for the primary's own decisions."""

    epoch: int
    sequence: int
    time_us: wire.TimeUs
    client: bytes
    command: Command


class _Heading(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The beginning of a record: where it stands in the log, and when it was stamped."""

    epoch: int
    sequence: int
    time_us: int


EncodedRecord: TypeAlias = msgspec.Raw
"""A record as it was read from a disk, which is decoded once it is needed."""

heading = msgspec.msgpack.Decoder(_Heading).decode
"""Returns where an encoded record stands. Raises msgspec.MsgspecError if it is none."""
_decode = msgspec.msgpack.Decoder(Record).decode


def decoded_record(record: EncodedRecord) -> Record:
    """Return the record itself. Raises InvariantError if this release cannot read it."""
    try:
        return _decode(record)
    except msgspec.MsgspecError as error:
        raise InvariantError(
            f"a record on disk is none that this release can read, a later one may have written it: {error}"
        ) from error


class StoredSession(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A session as it is transferred to another replica."""

    digest: Key
    state: wire.SessionState


class EncodedSession(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A `StoredSession` as it was read from a disk: its state is what a table keeps."""

    digest: Key
    state: msgspec.Raw


class KeptReply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The reply to a client's mutation, kept until the client says that it has it.

    `kind` and `subject` name the command, see `asked`: another command under the same request id does not get
    this reply. Kind 0 is from a replica that did not record the kind.
    """

    client: bytes
    request_id: int
    reply: wire.EncodedReply
    kind: int = 0
    subject: bytes = b""


class ClientState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a shard knows of a client, which has all replies to requests below `low`."""

    client: bytes
    low: int
    since_us: int
    used_us: int
