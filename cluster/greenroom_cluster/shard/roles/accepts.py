"""The roles of a replica and what each accepts, as a table.

An input that a role does not accept is ignored with a reason, never acted on. Epochs are compared before the
table is asked. Names are strings because those are found in a table without a call.
"""

from enum import StrEnum


class Role(StrEnum):
    """What a replica is to its shard."""

    PRIMARY = "primary"
    BACKUP = "backup"
    JOINING = "joining"
    FENCED = "fenced"
    SUSPENDED = "suspended"


class Kind(StrEnum):
    """What can reach a replica."""

    REQUEST = "request"
    RECORDS = "records"
    COMMIT = "commit"
    CHUNK = "chunk"
    ACKNOWLEDGEMENT = "acknowledgement"
    CHUNK_ACKNOWLEDGEMENT = "chunk acknowledgement"
    GRACE_OVER = "grace over"


ACCEPTS: dict[Role, frozenset[Kind]] = {
    # Reads and writes; what its followers say.
    Role.PRIMARY: frozenset({Kind.REQUEST, Kind.ACKNOWLEDGEMENT, Kind.CHUNK_ACKNOWLEDGEMENT}),
    # The log and the commit point; it alone may take over.
    Role.BACKUP: frozenset({Kind.RECORDS, Kind.COMMIT, Kind.GRACE_OVER}),
    # A snapshot, and the log that goes on meanwhile. It never takes over: it may lack what was committed.
    Role.JOINING: frozenset({Kind.RECORDS, Kind.COMMIT, Kind.CHUNK}),
    # It has proposed that another configuration begins, so it must not help the present one any more.
    Role.FENCED: frozenset(),
    # It took over from a primary that died or hung on a record, and waits there for an operator.
    Role.SUSPENDED: frozenset(),
}
