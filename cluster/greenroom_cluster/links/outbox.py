"""The connection for each effect of the core, and the order and grouping of messages.

The effects of one step leave with one send per connection. Peers come first: they work on what they get
while the replies to clients are encoded. A beacon overtakes what is queued, because a lease must not wait for
records. What has no connection is dropped: the core hears when there is one, and says again what still
matters.

A peer is answered on the newest connection that it opened. What comes on an older one is a leftover of a link
that the peer has given up, and ends it.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from greenroom import wire
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.shard.effects import (
    Connect,
    Disconnect,
    DropBefore,
    HostEffect,
    Persist,
    Propose,
    ReplyToClient,
    ReplyToPeer,
    Send,
)
from greenroom_cluster.shard.messages import Beacon, SnapshotChunk, SnapshotOk, SnapshotRefused

_BULK_REPLIES = frozenset({SnapshotOk, SnapshotRefused})


def are_bulk(messages: Sequence[Any]) -> bool:
    """Return whether these came on a connection for snapshots."""
    for message in messages:  # noqa: SIM110  `any` takes a generator, which costs more than the few messages
        if type(message) is SnapshotChunk:
            return True
    return False


def farewell(messages: Sequence[Any]) -> wire.Goodbye | None:
    """Return the goodbye among what a peer answers: it ends the link, and nothing beside it counts."""
    for message in messages:
        if type(message) is wire.Goodbye:
            return message
    return None


class Line(Protocol):
    """A connection to or from a peer."""

    @property
    def queued(self) -> bool:
        """Whether a message sent now would wait behind others in this process."""


PeerLine = TypeVar("PeerLine", bound=Line)
ClientLine = TypeVar("ClientLine")


class OpenLink(msgspec.Struct, frozen=True, gc=False):
    """Keep a connection open to this peer, until it is to be closed."""

    peer: bytes
    bulk: bool
    address: str


class CloseLink(msgspec.Struct, frozen=True, gc=False):
    """End the connection to this peer, or the attempt; nothing that it still brings counts."""

    peer: bytes
    bulk: bool


LinkChange: TypeAlias = OpenLink | CloseLink

DiskEffect: TypeAlias = Persist | DropBefore
"""What is for the disk of an actor."""


class Rare(Generic[PeerLine]):
    """What few steps have to say, to be done in the order of the fields.

    The first three go before all else. `notes` go nowhere. `changes` are of links. An `urgent` message goes
    ahead of what its connection has queued. `proposals` are for the coordinator, and `writes`, last of all,
    for the disk. What comes `later` is yet to be sorted, once these are written.
    """

    __slots__ = ("changes", "later", "notes", "proposals", "urgent", "writes")

    def __init__(self) -> None:
        self.notes: list[HostEffect] = []
        self.changes: list[LinkChange] = []
        self.urgent: list[tuple[PeerLine, Beacon]] = []
        self.proposals: list[Proposal] = []
        self.writes: list[DiskEffect] = []
        self.later: list[HostEffect] = []


Letters: TypeAlias = list[Any]
"""Messages that leave together."""

Mail: TypeAlias = tuple[Rare[PeerLine] | None, dict[PeerLine, Letters], list[tuple[ClientLine, Letters]]]
"""What one step has to say: first what is rare, then to peers, then to clients, each by connection."""


class _Link(Generic[PeerLine]):
    __slots__ = ("address", "line")

    def __init__(self, address: str) -> None:
        self.address = address
        self.line: PeerLine | None = None


class Outbox(Generic[PeerLine, ClientLine]):
    """The connections of one actor; sorts the effects of its core by them."""

    def __init__(self) -> None:
        self._clients: dict[int, ClientLine] = {}
        self._peers: dict[tuple[bytes, bool], tuple[int, PeerLine]] = {}
        self._links: dict[tuple[bytes, bool], _Link[PeerLine]] = {}

    # --- connections -------------------------------------------------------------------------------------

    def add_client(self, number: int, line: ClientLine) -> None:
        """Send replies for connection `number` here."""
        self._clients[number] = line

    def drop_client(self, number: int) -> None:
        """Drop replies for connection `number` from now on."""
        self._clients.pop(number, None)

    def heard(self, peer: bytes, number: int, line: PeerLine, *, bulk: bool) -> PeerLine | None:
        """Answer this peer on `line` from now on; `number` rises with each connection that it opened.

        Returns the connection that is to be ended, if one is: the one used before, or `line` itself, and then
        what came on it does not count.
        """
        known = self._peers.get((peer, bulk))
        if known is not None:
            if known[0] == number:
                return None
            if known[0] > number:
                return line
        self._peers[peer, bulk] = (number, line)
        return None if known is None else known[1]

    def drop_peer(self, peer: bytes, number: int) -> None:
        """Drop answers to this peer that would go to connection `number`."""
        for bulk in (False, True):
            known = self._peers.get((peer, bulk))
            if known is not None and known[0] == number:
                del self._peers[peer, bulk]

    def link_up(self, peer: bytes, line: PeerLine, *, bulk: bool) -> None:
        """Send to this peer on `line`, the connection that was to be kept open."""
        link = self._links.get((peer, bulk))
        if link is not None:
            link.line = line

    def link_down(self, peer: bytes, *, bulk: bool) -> None:
        """Drop what is for this peer until its link is up again."""
        link = self._links.get((peer, bulk))
        if link is not None:
            link.line = None

    # --- effects -----------------------------------------------------------------------------------------

    def sort(self, effects: Sequence[HostEffect]) -> Mail[PeerLine, ClientLine]:
        """Sort the effects of one step by connection, up to the first that has to be written."""
        rare: Rare[PeerLine] | None = None
        to_peers: dict[PeerLine, Letters] = {}
        replies: dict[int, Letters] = {}
        number = -1
        letters: Letters = []
        rest = iter(effects)
        for effect in rest:
            if isinstance(effect, ReplyToClient):
                # Most often all replies of a step go to one connection.
                if effect.connection != number:
                    number = effect.connection
                    letters = replies.setdefault(number, [])
                letters.append(effect.message)
                continue
            if isinstance(effect, Send):
                link = self._links.get((effect.peer, effect.bulk))
                line = None if link is None else link.line
                if line is not None and type(effect.message) is Beacon and line.queued:
                    rare = rare or Rare()
                    rare.urgent.append((line, effect.message))
                    continue
            elif isinstance(effect, ReplyToPeer):
                known = self._peers.get((effect.peer, type(effect.message) in _BULK_REPLIES))
                line = None if known is None else known[1]
            else:
                rare = rare or Rare()
                self._sort_rare(rare, effect)
                if isinstance(effect, Persist):
                    rare.later = list(rest)
                continue
            if line is not None:
                messages = to_peers.get(line)
                if messages is None:
                    to_peers[line] = [effect.message]
                else:
                    messages.append(effect.message)
        to_clients: list[tuple[ClientLine, Letters]] = []
        for number, letters in replies.items():
            client = self._clients.get(number)
            if client is not None:
                to_clients.append((client, letters))
        return rare, to_peers, to_clients

    def _sort_rare(self, rare: Rare[PeerLine], effect: HostEffect) -> None:
        match effect:
            case Propose(proposal=proposal):
                rare.proposals.append(proposal)
            case Persist() | DropBefore():
                rare.writes.append(effect)
            case Connect(peer=peer, address=address, bulk=bulk):
                former = self._links.get((peer, bulk))
                if former is not None:
                    if former.address == address:
                        return
                    rare.changes.append(CloseLink(peer, bulk))
                self._links[peer, bulk] = _Link(address)
                rare.changes.append(OpenLink(peer, bulk, address))
            case Disconnect(peer=peer, bulk=bulk):
                if self._links.pop((peer, bulk), None) is not None:
                    rare.changes.append(CloseLink(peer, bulk))
            case _:
                rare.notes.append(effect)
