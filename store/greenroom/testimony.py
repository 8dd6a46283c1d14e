"""What an actor tells a coordinator of its directory when it subscribes to the map."""

from typing import Annotated

import msgspec

from greenroom.cluster_map import SHARDS_MAX

ADDITIONS_MAX = 1 << 15
"""The most changes that an actor may have proposed without knowing what became of them."""


class Addition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Whom a change adds to a shard that was proposed, and may have been decided; "" is an unknown slot."""

    shard: Annotated[int, msgspec.Meta(ge=0, lt=SHARDS_MAX)]
    member: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    slot: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Testimony(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an actor tells a coordinator that may be restored from an older copy, beside the epochs.

    `kept` are the shards of which its directory, as it was opened, knew the configuration: for these it
    speaks for those who ran in it before. `additions` are of what they and itself have proposed.
    """

    kept: Annotated[tuple[int, ...], msgspec.Meta(max_length=SHARDS_MAX)] = ()
    additions: Annotated[tuple[Addition, ...], msgspec.Meta(max_length=ADDITIONS_MAX)] = ()
