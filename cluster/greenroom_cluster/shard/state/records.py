"""What the log holds: records, each a command stamped by the primary.

Commands of clients are logged as they came over the wire; three more exist only in logs: `Expire`,
`ForgetClients` and `Evict`, the primary's own decisions, logged so that both sides take them at the same
point.
"""

from typing import TypeAlias, get_args

import msgspec

from greenroom import wire


class Expire(wire.Frame, frozen=True, tag=70):
    """Remove these sessions if their time is over at the record's shard time."""

    digests: tuple[bytes, ...]


class ForgetClients(wire.Frame, frozen=True, tag=71):
    """Drop the kept results of these clients, but not of one that wrote after `silent_since_us`.

    Such a write may stand in the log between the look at the clients and this record.
    """

    clients: tuple[bytes, ...]
    silent_since_us: int


class Evict(wire.Frame, frozen=True, tag=72):
    """Remove those of these sessions that have no user.

    One may have got a user between the look at it and this record. This is logged only where `eviction` is
    set, for a release of before it cannot read it.
    """

    digests: tuple[bytes, ...]


Answered: TypeAlias = wire.Mutation | wire.DeleteByUser | wire.Clean
"""The commands whose reply is kept."""

Command: TypeAlias = Answered | Expire | ForgetClients | Evict

KINDS: dict[type, tuple[int, bool]] = {
    kind: (kind.__struct_config__.tag, "digest" in kind.__struct_fields__) for kind in get_args(Answered)
}
"""By type: the tag, and whether the command is about one session."""


def asked(command: Answered) -> tuple[int, bytes]:
    """Return what a command asks for: its kind, and the digest or user that it is about.

    Not a hash of all of it: that would cost a hundredth of a write and more. Who names the same digest could
    read that session anyway, so nothing is shown to anybody who must not see it.
    """
    kind, of_session = KINDS[type(command)]
    if of_session:
        return kind, command.digest  # type: ignore[union-attr]  # it has one
    return kind, command.user_id.encode() if isinstance(command, wire.DeleteByUser) else b""


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of a shard's log. `client` is empty for the primary's own decisions."""

    epoch: int
    sequence: int
    time_us: int
    client: bytes
    command: Command


class StoredSession(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A session as it is transferred to another replica."""

    digest: wire.Digest
    state: wire.SessionState


class KeptResult(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The reply to a client's mutation, kept until the client says that it has it.

    `kind` and `subject` say to which command, see `asked`: whoever asks for something else under the same
    request id does not get it. Kind 0 is from a replica that did not note it.
    """

    client: bytes
    request_id: int
    reply: wire.EncodedReply
    kind: int = 0
    subject: bytes = b""


class ClientState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A client as a shard knows it: requests below `low` are answered for good."""

    client: bytes
    low: int
    since_us: int
    used_us: int
