"""The messages of the near cache: what a client and an actor say about sessions that the client keeps.

They are used if both have the feature `near` (`greenroom.wire.FEATURE_NEAR`). An actor that answers with
`Held` has noted the connection as a holder of that session: it tells the connection before anybody is shown
another state of it, and waits for the `NearAck`, or until the lease that it gave by `NearLease` is over.

All of them keep the order of their connection; that is what makes them safe (`greenroom.dialog.near`).
"""

from typing import Annotated, TypeAlias

import msgspec

from greenroom import wire

DIGESTS_MAX = 4096
"""The most digests that one message names."""

HITS_MAX = 1 << 32
"""The most hits that one beacon tells of."""

CLOCK_DRIFT = 0.1
"""By how much the clock of a client or a server may run faster or slower than another: leases rest on it."""

IN_ANY_CASE = -1
"""Of `GetNear.seen`: hold the session whatever its version is."""

Digests: TypeAlias = Annotated[tuple[wire.Digest, ...], msgspec.Meta(max_length=DIGESTS_MAX)]


class GetNear(wire.Frame, frozen=True, tag=26):
    """Read one session, and hold it for this connection if its version is still `seen`.

    Answered by `Held`, or as `wire.Get` is.
    """

    request_id: int
    point: int
    digest: wire.Digest
    seen: int


class NearBeacon(wire.Frame, frozen=True, tag=27):
    """Asks for the lease again. `sent_ns` is the sender's clock, returned untouched. `NearLease` answers.

    `hits` is how often the sender has shown what this connection holds since the last one.
    """

    sent_ns: int
    hits: Annotated[int, msgspec.Meta(ge=0, le=HITS_MAX)] = 0


class NearAck(wire.Frame, frozen=True, tag=28):
    """The sender has dropped what the `Invalidate`s up to this number name."""

    number: int


class Unhold(wire.Frame, frozen=True, tag=29):
    """The sender keeps these no longer."""

    digests: Digests


class Held(wire.Frame, frozen=True, tag=51):
    """The session as it stands, and it is held for this connection. It expires in `left_us`."""

    request_id: int
    state: wire.SessionState
    left_us: int


class EncodedHeld(wire.Frame, frozen=True, tag=51):
    """A `Held` on its way out, whose state is sent as it is stored."""

    request_id: int
    state: msgspec.Raw
    left_us: int


class NearLease(wire.Frame, frozen=True, tag=52):
    """What is held may be used for `rem_us` from when the beacon was sent."""

    sent_ns: int
    rem_us: int


class Invalidate(wire.Frame, frozen=True, tag=53):
    """Drop these sessions, and all of these shards; answered by `NearAck` with the number."""

    number: int
    digests: Digests
    shards: wire.Shards


NearRequest: TypeAlias = GetNear | NearBeacon | NearAck | Unhold
NearReply: TypeAlias = Held | NearLease | Invalidate
EncodedNearReply: TypeAlias = EncodedHeld | NearLease | Invalidate
