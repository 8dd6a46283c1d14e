"""What a namespace has in a cluster, as an actor tells an operator."""

import msgspec


class NamespaceUse(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sessions of a namespace in the shards of which an actor is primary, and their bytes as stored.

    `sessions_max` and `stored_bytes_max` are its quota in the whole cluster, 0 without one. `refused`: a
    write was refused for that within the last minute.
    """

    namespace: str
    sessions: int
    stored_bytes: int
    sessions_max: int = 0
    stored_bytes_max: int = 0
    refused: bool = False
