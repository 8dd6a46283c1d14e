"""What two sides agree on by their hellos: a version of the protocol, and which of its optional parts.

A hello names the lowest and the highest version that its sender speaks, and the features that it has. From
both hellos both sides reckon the same: the highest version that both speak, and the features that both have.
A release that knows neither of this names one version, and takes the lowest of ours for the only one.
"""

import msgspec

from greenroom import wire


class Agreement(msgspec.Struct, frozen=True):
    """What is spoken on one connection."""

    version: int
    features: frozenset[str] = frozenset()


def hello(cluster: str, role: str, sender: bytes, target: bytes = b"", clock_us: int = 0) -> wire.Hello:
    """Return the hello of this release; the arguments are as in `wire.Hello`."""
    return wire.Hello(
        protocol=wire.PROTOCOL_VERSION_MIN,
        routing=wire.ROUTING_VERSION,
        cluster=cluster,
        role=role,
        sender=sender,
        target=target,
        clock_us=clock_us,
        protocol_max=wire.PROTOCOL_VERSION,
        features=wire.FEATURES,
    )


def agree(ours: wire.Hello, theirs: wire.Hello) -> Agreement | None:
    """Return what is spoken between the senders of two hellos, None if they have no version in common."""
    version = min(highest(ours), highest(theirs))
    if version < max(ours.protocol, theirs.protocol):
        return None
    return Agreement(version, frozenset(ours.features) & frozenset(theirs.features))


def highest(hello: wire.Hello) -> int:
    """Return the highest version that the sender of a hello speaks."""
    return max(hello.protocol, hello.protocol_max)


def versions_text(hello: wire.Hello) -> str:
    """Say which versions the sender of a hello speaks."""
    top = highest(hello)
    return f"{hello.protocol}" if top == hello.protocol else f"{hello.protocol} to {top}"
