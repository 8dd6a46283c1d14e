"""Connections as the dialog sees them: what was received, what to write, and what the driver has to do.

The life of a link: the driver gets an `Open` and reports the connection; our hello goes out and the server's
comes in; from then on the link carries messages. Requests wait for the server's hello, so nothing is sent to
a process that happens to listen on the port of a former actor, and a refused hello means that nothing was
applied.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry
from greenroom.errors import RemoteProtocolError
from greenroom.framing import (
    FRAME_BYTES_MAX,
    FrameBuffer,
    encode_greeting,
    encode_message,
    join_frames,
)
from greenroom.negotiation import Agreement, agree, hello, versions_text
from greenroom.tokens import Shown

MAP_FRAME_BYTES_MAX = 16 << 20
"""A map of 4,096 shards and a thousand actors takes less than a megabyte; the rest is room for growth."""

CONNECT_NS = 1_000_000_000
HELLO_NS = 1_000_000_000
CLIENT_ID_BYTES = 16


class Open(msgspec.Struct, frozen=True, gc=False):
    """Connect to this address and report `opened` or `lost`.

    With TLS a node must answer, and the one of that name if there is one.
    """

    link: int
    address: str
    node: str = ""


class Abort(msgspec.Struct, frozen=True, gc=False):
    """Reset this connection at once (linger 0): nothing still in its buffers may arrive. Not reported."""

    link: int


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close this connection in an orderly way; nothing on it is unanswered. Not reported."""

    link: int


Action: TypeAlias = Open | Abort | Close


class Lane:
    """One actor incarnation that is the primary of some shard, and the connection to it, if there is one.

    `waiting` are the operations to send once it is open or has room. `failures` counts attempts to connect
    that failed in a row; the next is made at `retry_ns`. `side` is a second connection to the same actor, for
    suspects (see `suspects`); such a lane knows the first one as its `main`.
    """

    __slots__ = (
        "actor",
        "failures",
        "last_failure",
        "link",
        "main",
        "ready",
        "retry_ns",
        "side",
        "waiting",
    )

    def __init__(self, actor: ActorEntry, main: "Lane | None" = None) -> None:
        self.actor = actor
        self.main = main
        self.side: Lane | None = None
        self.link: Link | None = None
        self.ready = False
        self.waiting: dict[int, object] = {}
        self.failures = 0
        self.retry_ns = 0
        self.last_failure = ""

    @property
    def root(self) -> "Lane":
        """The lane by which the map knows this actor."""
        return self.main or self

    def why_waiting(self) -> str:
        """Say what an operation in `waiting` waits for."""
        if self.ready and self.main is not None:
            return (
                f"the actor at {self.actor.address} is asked one by one for what its connections broke over"
            )
        if self.ready:
            return f"the connection to the actor at {self.actor.address} is full of unanswered requests"
        if self.last_failure:
            return f"the primary at {self.actor.address} is unreachable ({self.last_failure})"
        return f"the primary at {self.actor.address} did not accept the connection in time"


class Lease:
    """How long what came on a connection may be shown without asking; see `near`.

    `rem_ns` is how long the newest lease was. `asked_ns`: when the unanswered beacon was queued, 0 if there
    is none; `tried_ns`: when the newest one was. `hits` is how often something was shown since then.
    """

    __slots__ = ("asked_ns", "hits", "rem_ns", "tried_ns", "until_ns")

    def __init__(self) -> None:
        self.until_ns = 0
        self.rem_ns = 0
        self.asked_ns = 0
        self.tried_ns = 0
        self.hits = 0


class Link:
    """One connection. `lane` is None for a subscription to the map.

    The encoded `greeting`, then the messages in `out`, wait to be written. `asked` is our hello, with what
    `challenge` adds to it. `agreement` is what both sides speak, once it is `greeted`. `bytes` counts what
    was sent and is unanswered. By `deadline_ns` it must be open. `alone` is the id of the last request on a
    link for suspects. `lease` is None where nothing is held for this connection. `brought` says whether a
    subscription has brought a map of the cluster whose map is held.
    """

    __slots__ = (
        "address",
        "agreement",
        "alone",
        "asked",
        "asked_whole_ns",
        "brought",
        "buffer",
        "bytes",
        "challenge",
        "deadline_ns",
        "dirty",
        "greeted",
        "greeting",
        "id",
        "lane",
        "lease",
        "opened",
        "out",
        "peer",
    )

    def __init__(self, number: int, address: str, lane: Lane | None, deadline_ns: int) -> None:
        self.id = number
        self.address = address
        self.lane = lane
        self.deadline_ns = deadline_ns
        self.opened = False
        self.greeted = False
        self.agreement: Agreement | None = None
        self.peer = b""
        self.buffer = FrameBuffer(FRAME_BYTES_MAX if lane is not None else MAP_FRAME_BYTES_MAX)
        self.asked: wire.Hello | None = None
        self.challenge: Shown | None = None
        self.greeting = b""
        self.out: list[msgspec.Raw] = []
        self.dirty = False
        self.bytes = 0
        self.alone = 0
        self.asked_whole_ns = 0
        self.brought = False
        self.lease: Lease | None = None


class Switchboard:
    """All links of a dialog, and what the driver has yet to do about them.

    Servers know it by `client_id`. The driver drains `actions` and `dirty`. `due_ns` is when the first
    link that is being opened is late.
    """

    def __init__(self, entropy: Callable[[int], bytes], cluster: str) -> None:
        self.actions: list[Action] = []
        self.dirty: list[Link] = []
        self.queued_bytes = 0
        self.client_id = _draw_id(entropy)
        self._cluster = cluster
        self._links: dict[int, Link] = {}
        self._opening: dict[int, Link] = {}
        self._next_id = 0

    def get(self, number: int) -> Link | None:
        """Return a link that is still wanted, or None."""
        return self._links.get(number)

    def open(self, address: str, lane: Lane | None, now_ns: int) -> Link:
        """Have the driver connect."""
        self._next_id += 1
        link = Link(self._next_id, address, lane, now_ns + CONNECT_NS)
        self._links[link.id] = self._opening[link.id] = link
        self.actions.append(Open(link.id, address, "" if lane is None else lane.actor.node))
        return link

    def opened(self, link: Link, now_ns: int, challenge: Shown | None = None) -> None:
        """Say hello on a link that the driver has connected."""
        link.opened = True
        link.deadline_ns = now_ns + HELLO_NS
        target = link.lane.actor.incarnation if link.lane is not None else b""
        asked = hello(self._cluster, wire.ROLE_CLIENT, self.client_id, target)
        link.challenge = challenge
        link.asked = asked if challenge is None else challenge.asking(asked)
        link.greeting = encode_greeting(link.asked)
        self._mark_dirty(link)

    def greeted(self, link: Link, answer: wire.Hello) -> None:
        """Check the server's hello. Raises RemoteProtocolError if the two sides do not fit.

        Raises NotProvenError if the server must prove that it knows our secret, and does not.
        """
        ours = link.asked
        if link.greeted or ours is None:
            raise RemoteProtocolError("a second hello, or one before ours")
        agreement = agree(ours, answer)
        if agreement is None or answer.routing != ours.routing:
            raise RemoteProtocolError(
                f"it speaks protocol {versions_text(answer)} with routing {answer.routing}, this client "
                f"{versions_text(ours)} with {ours.routing}; upgrade the older side"
            )
        if answer.cluster != self._cluster:
            raise RemoteProtocolError(
                f"it belongs to cluster {answer.cluster!r}, not {self._cluster!r}; check the option cluster"
            )
        if link.lane is not None and answer.sender != link.lane.actor.incarnation:
            raise RemoteProtocolError("another actor listens there now")
        if link.challenge is not None and (proof := link.challenge.proof(ours, answer)) is not None:
            link.greeting = encode_greeting(proof)
            self._mark_dirty(link)
        link.agreement = agreement
        link.greeted = True
        link.peer = answer.sender
        del self._opening[link.id]

    def write(self, link: Link, message: wire.Frame) -> None:
        """Queue a message for the next flush."""
        link.out.append(encode_message(message))
        self._mark_dirty(link)

    def _mark_dirty(self, link: Link) -> None:
        if not link.dirty:
            link.dirty = True
            self.dirty.append(link)

    def take_writes(self) -> list[tuple[int, bytes]]:
        """Return what to write, by link, and empty the queues."""
        writes = []
        for link in self.dirty:
            link.dirty = False
            if link.out:
                writes.append((link.id, link.greeting + join_frames(link.out)))
                link.out = []
            elif link.greeting:
                writes.append((link.id, link.greeting))
            link.greeting = b""
        self.dirty.clear()
        self.queued_bytes = 0
        return writes

    def abort(self, link: Link) -> None:
        """Have the driver reset the connection; ignore what it still brings."""
        if self.forget(link):
            self.actions.append(Abort(link.id))

    def close(self, link: Link) -> None:
        """Have the driver close the connection."""
        if self.forget(link):
            self.actions.append(Close(link.id))

    def forget(self, link: Link) -> bool:
        """Drop a link; return whether it was still known."""
        self._opening.pop(link.id, None)
        link.greeting, link.out = b"", []
        return self._links.pop(link.id, None) is not None

    def late(self, now_ns: int) -> list[Link]:
        """Return the links that took too long to open."""
        return [link for link in self._opening.values() if link.deadline_ns <= now_ns]

    @property
    def due_ns(self) -> int | None:
        """When the next link that is being opened will be late."""
        return min((link.deadline_ns for link in self._opening.values()), default=None)

    def all(self) -> list[Link]:
        """Return every link."""
        return list(self._links.values())


def _draw_id(entropy: Callable[[int], bytes]) -> bytes:
    """Return an id for this dialog alone: under a shared id, requests would be mistaken for each other."""
    return entropy(CLIENT_ID_BYTES)
