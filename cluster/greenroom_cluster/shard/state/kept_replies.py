"""Exactly once: the replies that clients have not confirmed yet (RIFL, Lee et al., SOSP 2015).

A reply is kept for the client, as part of the replicated state, until the client confirms that it no longer
waits for it. A repeat of the request gets the same reply and has no second effect, even at another primary.

Clients are known by the id in their hello, which anybody can make up or repeat. So a reply is given only to
the command that it was decided for. Each kept reply is charged for the whole session that it shows, because
it shares that with the table only until the session changes. What each namespace has is counted, so that none
takes what is for all, see `sharing`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import msgspec

from greenroom import wire
from greenroom.ids import DIGEST_BYTES, is_listed_as
from greenroom_cluster.shard.state.memory import CLIENT_BYTES, REPLY_BYTES
from greenroom_cluster.shard.state.namespaces import CLIENT_ID_BYTES, name_behind
from greenroom_cluster.shard.state.records import Answered, ClientState, KeptReply, asked

_SESSION = wire.EncodedSession
_NEVER = 1 << 64


class Client:
    """What a shard knows of one client, which has all replies to requests below `low`.

    `since_us` is the shard time since which it is known: what it wrote before may have been forgotten.
    `kept_bytes` is about how much its replies keep in memory: the sessions that they show.
    """

    __slots__ = (
        "kept_bytes",
        "low",
        "newest",
        "numbers",
        "replies",
        "since_us",
        "used_us",
    )

    def __init__(self, low: int, since_us: int, used_us: int) -> None:
        self.low = low
        self.since_us = since_us
        self.used_us = used_us
        self.kept_bytes = 0
        self.replies: dict[int, KeptReply] = {}
        # Requests nearly always come in order, and then `replies` is in order. After one that did not, their
        # ids are kept in order here: otherwise every write of a client with thousands of them would search
        # them all.
        self.numbers: list[int] | None = None
        # A request above it is in order, and not answered yet.
        self.newest = low - 1

    @property
    def charged_bytes(self) -> int:
        """What all its replies are charged."""
        return self.kept_bytes + REPLY_BYTES * len(self.replies)

    def keep(self, kept: KeptReply, low: int) -> int:
        """Drop the replies below `low`, then keep one more; return by how much `charged_bytes` grew.

        It replaces a former reply to the same request. The low-watermark never goes back.
        """
        less = self._drop_below(low) if low > self.low else 0
        return (self._enter(kept) if kept.request_id >= self.low else 0) - less

    def _enter(self, kept: KeptReply) -> int:
        """Keep a reply, replacing a former one to the same request; return by how much the charge grew."""
        request_id = kept.request_id
        more = REPLY_BYTES
        if request_id > self.newest:
            self.newest = request_id
        else:
            more -= self._make_way(request_id)
        self.replies[request_id] = kept
        shown = _shown_bytes(kept)
        self.kept_bytes += shown
        return more + shown

    def _make_way(self, request_id: int) -> int:
        """Enter the id of a request that came out of order; return what its former reply was charged."""
        if self.numbers is None:
            self.numbers = sorted(self.replies)
            self.newest = _NEVER
        former = self.replies.get(request_id)
        if former is None:
            insort(self.numbers, request_id)
            return 0
        return self._release(former)

    def _below(self, low: int) -> list[int]:
        """Return the ids below a number that have kept replies."""
        if self.numbers is not None:
            return self.numbers[: bisect_left(self.numbers, low)]
        found = []
        for request_id in self.replies:
            if request_id >= low:
                break
            found.append(request_id)
        return found

    def kept_from(self, low: int) -> tuple[int, int]:
        """Return how many replies to requests from `low` on are kept, and about how much memory they keep."""
        confirmed = self._below(low)
        size = sum(_shown_bytes(self.replies[request_id]) for request_id in confirmed)
        return len(self.replies) - len(confirmed), self.kept_bytes - size

    def charged_below(self, low: int) -> int:
        """Return the charge of the replies that this low-watermark would drop."""
        count, size = self.kept_from(low)
        return self.charged_bytes - size - REPLY_BYTES * count

    def _drop_below(self, low: int) -> int:
        """Drop the replies that the client has confirmed; return by how much the charge shrank."""
        self.low = low
        confirmed = self._below(low)
        less = sum([self._release(self.replies.pop(request_id)) for request_id in confirmed])
        if self.numbers is not None:
            del self.numbers[: len(confirmed)]
            if not self.replies:
                self.numbers = None
        if self.numbers is None:
            self.newest = max(self.newest if self.newest < _NEVER else 0, low - 1)
        return less

    def _release(self, kept: KeptReply) -> int:
        """Release the session that a reply shows; return the reply's charge."""
        shown = _shown_bytes(kept)
        self.kept_bytes -= shown
        return REPLY_BYTES + shown


class ClientTable:
    """Clients and their kept replies, in the order in which clients were first seen."""

    __slots__ = ("_named", "by_id", "charged_bytes", "named_bytes")

    def __init__(self) -> None:
        self.by_id: dict[bytes, Client] = {}
        """Public for look-ups, which every write makes."""
        self.charged_bytes = 0
        """What clients and their replies are charged."""
        self.named_bytes: dict[bytes, int] = {}
        """Of these, what those of each namespace other than `default` are charged."""
        # How many clients each of these has.
        self._named: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def get(self, client: bytes) -> Client | None:
        """Return what is known of the client, None if it never wrote here or was forgotten."""
        return self.by_id.get(client)

    def count_beside(self, client: bytes) -> int:
        """Return how many clients its namespace has."""
        name = name_behind(client)
        return self._named.get(name, 0) if name else len(self.by_id) - sum(self._named.values())

    def _charge(self, client: bytes, more: int, clients: int = 0) -> None:
        self.charged_bytes += more
        name = name_behind(client)
        if not name:
            return
        count = self._named.get(name, 0) + clients
        if count:
            self._named[name] = count
            self.named_bytes[name] = self.named_bytes.get(name, 0) + more
        else:
            del self._named[name], self.named_bytes[name]

    def keep(self, kept: KeptReply, low: int, time_us: int) -> None:
        """Keep the reply to a request and drop those below the client's low-watermark."""
        known = self.by_id.get(kept.client)
        if known is None:
            known = self.by_id[kept.client] = Client(low, time_us, time_us)
            self._charge(kept.client, CLIENT_BYTES, 1)
        known.used_us = time_us
        request_id = kept.request_id
        if request_id <= known.newest or request_id < low:
            self._charge(kept.client, known.keep(kept, low))
            return
        # Nearly always, with every write, one reply comes and one goes.
        more, shown, replies = REPLY_BYTES, 0, known.replies
        if low > known.low:
            known.low = low
            while (first := next(iter(replies), low)) < low:
                more -= REPLY_BYTES
                reply = replies.pop(first).reply
                if type(reply) is _SESSION:
                    shown -= len(reply.state)
        reply = kept.reply
        if type(reply) is _SESSION:
            shown += len(reply.state)
        known.newest = request_id
        replies[request_id] = kept
        if shown:
            known.kept_bytes += shown
            more += shown
        if more:
            if len(kept.client) > CLIENT_ID_BYTES:
                self._charge(kept.client, more)
            else:
                self.charged_bytes += more

    def forget(self, clients: Iterable[bytes], silent_since_us: int) -> None:
        """Drop these clients, with their replies, except those that have written since."""
        for client in clients:
            known = self.by_id.get(client)
            if known is not None and known.used_us <= silent_since_us:
                del self.by_id[client]
                self._charge(client, -CLIENT_BYTES - known.charged_bytes, -1)

    @property
    def kept_bytes(self) -> int:
        """About how many bytes the kept replies keep in memory."""
        return sum(known.kept_bytes for known in self.by_id.values())

    def silent_since(self, time_us: int) -> tuple[bytes, ...]:
        """Return the clients that have not written after `time_us`."""
        return tuple(client for client, known in self.by_id.items() if known.used_us <= time_us)

    def states(self) -> Iterator[ClientState]:
        """Yield every client, for a snapshot."""
        for client, known in self.by_id.items():
            yield ClientState(client, known.low, known.since_us, known.used_us)

    def replies(self) -> Iterator[KeptReply]:
        """Yield every kept reply, for a snapshot."""
        for known in self.by_id.values():
            yield from known.replies.values()

    def install(self, clients: Iterable[ClientState], replies: Iterable[KeptReply]) -> None:
        """Add what a snapshot brought."""
        for state in clients:
            self.by_id[state.client] = Client(state.low, state.since_us, state.used_us)
            self._charge(state.client, CLIENT_BYTES, 1)
        for kept in replies:
            # Clients come before their replies; a reply without its client is no reason to end this process.
            client = self.by_id.get(kept.client)
            if client is not None:
                reply = kept.reply
                if type(reply) is wire.EncodedSession:
                    # What came is a view that would keep the whole frame in memory.
                    kept = msgspec.structs.replace(
                        kept, reply=wire.EncodedSession(reply.request_id, reply.state.copy())
                    )
                self._charge(kept.client, client.keep(kept, client.low))


def is_reply_to(kept: KeptReply, command: Answered) -> bool:
    """Whether a kept reply is one to this command, and not to another under the same request id."""
    return kept.kind == 0 or is_repeat(command, kept.kind, kept.subject)


def is_repeat(command: Answered, kind: int, subject: bytes) -> bool:
    """Whether a command repeats one that asked for this."""
    asks, about = asked(command)
    if asks != kind:
        return False
    # A handle was logged as the digest that it stood for.
    return subject == about or (
        type(command) is wire.DeleteByHandle
        and subject[DIGEST_BYTES:] == about[DIGEST_BYTES:]
        and is_listed_as(subject, about[:DIGEST_BYTES])
    )


def _shown_bytes(kept: KeptReply) -> int:
    reply = kept.reply
    return len(reply.state) if type(reply) is wire.EncodedSession else 0
