"""What the log holds: records, each a command stamped by the primary.

Commands of clients are logged as they came over the wire; two more exist only in logs: `Expire` and
`ForgetClients`, the primary's own decisions, logged so that both sides take them at the same point.
"""

from typing import TypeAlias

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


Command: TypeAlias = wire.Mutation | wire.DeleteByUser | wire.Clean | Expire | ForgetClients


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
    """The answer to a client's mutation, kept until the client says that it has it."""

    client: bytes
    request: int
    reply: wire.EncodedReply


class ClientState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A client as a shard knows it: requests below `low` are answered for good."""

    client: bytes
    low: int
    since_us: int
    used_us: int
