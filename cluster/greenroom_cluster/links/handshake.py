"""The greeting of a connection: what each side says first, and whether the other side can be worked with."""

from collections.abc import Mapping

import msgspec

from greenroom import wire

IDENTITY_BYTES = 16


def hello(cluster: str, role: str, sender: bytes, target: bytes = b"") -> wire.Hello:
    """Return the hello of this release; `target` as in `wire.Hello`."""
    return wire.Hello(
        protocol=wire.PROTOCOL_VERSION,
        routing=wire.ROUTING_VERSION,
        cluster=cluster,
        role=role,
        sender=sender,
        target=target,
    )


class Door(msgspec.Struct, frozen=True):
    """What a listening process says to a hello. `identity` is its own.

    `roles` are those that it serves, each with whether its hello must name the identity that it means.
    """

    cluster: str
    identity: bytes
    roles: Mapping[str, bool]

    def objection(self, greeting: wire.Hello) -> wire.Goodbye | None:
        """Return why this hello cannot be served, or None."""
        if greeting.protocol != wire.PROTOCOL_VERSION:
            return wire.Goodbye(
                "wrong-protocol",
                f"this side speaks protocol version {wire.PROTOCOL_VERSION}; install matching versions",
            )
        if greeting.routing != wire.ROUTING_VERSION:
            return wire.Goodbye(
                "wrong-routing",
                f"this side routes by version {wire.ROUTING_VERSION}; install matching versions",
            )
        if greeting.cluster != self.cluster:
            return wire.Goodbye(
                "wrong-cluster", "another cluster is served here; check the address and the cluster name"
            )
        if greeting.role not in self.roles:
            return wire.Goodbye(
                "wrong-role", f"only {', '.join(sorted(self.roles))} connections are served here"
            )
        if greeting.target != self.identity and (greeting.target or self.roles[greeting.role]):
            return wire.Goodbye("wrong-target", "another process answers here now; follow the cluster map")
        if len(greeting.sender) != IDENTITY_BYTES:
            return wire.Goodbye("wrong-sender", f"the sender must be {IDENTITY_BYTES} random bytes")
        return None

    def welcome(self, clock_us: int) -> wire.Hello:
        """Return the answer to a hello to which there is no objection."""
        answer = hello(self.cluster, wire.ROLE_PEER, self.identity)
        return msgspec.structs.replace(answer, clock_us=clock_us)


class Refusal(msgspec.Struct, frozen=True):
    """Why a connection that was dialled cannot be used; `code` is that of a `Goodbye`."""

    code: str
    reason: str


def judge(ours: wire.Hello, answer: wire.Hello | wire.Goodbye) -> wire.Hello | Refusal:
    """Return the answer to our hello, or why the connection on which it came cannot be used."""
    if isinstance(answer, wire.Goodbye):
        return Refusal(answer.code, f"refused: {answer.message} ({answer.code})")
    if ours.target and answer.sender != ours.target:
        # No greenroom says hello to what is meant for another: this is somebody who took its port.
        return Refusal("wrong-target", "is where another process answers now")
    return answer
