"""The roles of a replica, how one becomes another, and the inputs; `accepts` says which role accepts which.

StrEnum, because a plain Enum hashes in Python, and these are looked up for every request. docs/protocol.md
shows both tables.
"""

from enum import StrEnum


class Role(StrEnum):
    """The role of a replica in its shard; `NONE` for an actor without one."""

    NONE = "none"
    JOINING = "joining"
    BACKUP = "backup"
    FENCED = "fenced"
    SUSPENDED = "suspended"
    PRIMARY = "primary"
    HANDING_OVER = "handing over"


def label_of(role: str) -> str:
    """Return a role as it labels a metric."""
    return role.replace(" ", "_")


class InputKind(StrEnum):
    """Kinds of input to a replica."""

    READ = "read"
    WRITE = "write"
    FANOUT = "request to many shards"
    RECORDS = "records"
    COMMIT = "commit"
    CHUNK = "chunk"
    ACKNOWLEDGEMENT = "acknowledgement"
    LEASE = "lease"
    REFUSAL = "refusal"
    CHUNK_ACKNOWLEDGEMENT = "chunk acknowledgement"
    CHUNK_REFUSAL = "chunk refusal"
    GRACE_OVER = "grace over"
    CATCH_UP = "catching up"


BECOMES: dict[Role, dict[Role, str]] = {
    Role.NONE: {
        Role.JOINING: "first chunk",
        Role.PRIMARY: "start or recovery decided",
        Role.SUSPENDED: "recovery before a suspect",
    },
    Role.JOINING: {
        Role.BACKUP: "added",
        # It hears late that it was added, together with what was decided since.
        Role.PRIMARY: "handed over",
        Role.SUSPENDED: "takeover before a suspect",
    },
    Role.BACKUP: {
        Role.BACKUP: "members changed",
        Role.FENCED: "grace over",
        Role.PRIMARY: "handed over",
        Role.SUSPENDED: "takeover before a suspect",
    },
    Role.FENCED: {
        Role.BACKUP: "another is primary",
        Role.PRIMARY: "takeover decided",
        Role.SUSPENDED: "takeover before a suspect",
    },
    Role.SUSPENDED: {
        Role.BACKUP: "another is primary",
        Role.PRIMARY: "record dropped, or passed",
        Role.SUSPENDED: "members changed",
    },
    Role.PRIMARY: {
        Role.BACKUP: "another is primary",
        Role.HANDING_OVER: "hand-over proposed",
        Role.PRIMARY: "members changed",
    },
    Role.HANDING_OVER: {Role.BACKUP: "hand-over decided", Role.PRIMARY: "called off"},
}
"""What each role may become, and why. A replica may be given up in any role."""
