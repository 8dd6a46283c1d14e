"""Exactly once: the answers that clients have not confirmed yet (RIFL, Lee et al., SOSP 2015).

An answer is kept with the client that asked, as part of the replicated state, until the client says that it
no longer waits for it. A repeat of the request then gets the same answer instead of a second effect, also
from another primary.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from greenroom import wire
from greenroom_cluster.shard.records import ClientState, KeptResult


class Client:
    """What a shard knows of one client: requests below `low` are answered for good.

    `since_us` is the shard time from which on it is known: what it wrote before may have been forgotten.
    `kept_bytes` is about what its answers hold on to.
    """

    __slots__ = ("_numbers", "kept_bytes", "low", "results", "since_us", "used_us")

    def __init__(self, low: int, since_us: int, used_us: int) -> None:
        self.low = low
        self.since_us = since_us
        self.used_us = used_us
        self.kept_bytes = 0
        self.results: dict[int, wire.EncodedReply] = {}
        # The requests that `results` answers, in order: a client with thousands of them would else have all
        # looked through at every write.
        self._numbers: list[int] = []

    def add(self, request: int, reply: wire.EncodedReply) -> None:
        """Keep an answer; a second one to the same request takes the place of the first."""
        if request in self.results:
            self._drop(request)
        insort(self._numbers, request)
        self.results[request] = reply
        self.kept_bytes += _held_bytes(reply)

    def kept_from(self, low: int) -> tuple[int, int]:
        """Return how many answers to requests from `low` on are kept, and about what they hold on to."""
        confirmed = self._numbers[: bisect_left(self._numbers, low)]
        size = sum(_held_bytes(self.results[number]) for number in confirmed)
        return len(self.results) - len(confirmed), self.kept_bytes - size

    def answered_below(self, low: int) -> None:
        """Drop the answers that the client has confirmed."""
        self.low = low
        numbers, results = self._numbers, self.results
        end = bisect_left(numbers, low)
        for number in numbers[:end]:
            self.kept_bytes -= _held_bytes(results.pop(number))
        del numbers[:end]

    def _drop(self, request: int) -> None:
        self.kept_bytes -= _held_bytes(self.results.pop(request))
        del self._numbers[bisect_left(self._numbers, request)]


def _held_bytes(reply: wire.EncodedReply) -> int:
    return len(reply.state) if type(reply) is wire.EncodedSession else 0


class ClientTable:
    """Clients and their kept answers, in the order in which clients were first seen."""

    __slots__ = ("_clients",)

    def __init__(self) -> None:
        self._clients: dict[bytes, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, client: bytes) -> Client | None:
        """Return what is known of the client, None if it never wrote here or was forgotten."""
        return self._clients.get(client)

    def keep(self, client: bytes, request: int, low: int, time_us: int, reply: wire.EncodedReply) -> None:
        """Keep the answer to a request and drop those below the client's low-watermark."""
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = Client(low, time_us, time_us)
        elif low > known.low:
            known.answered_below(low)
        known.used_us = time_us
        if request >= known.low:
            known.add(request, reply)

    def forget(self, clients: Iterable[bytes], silent_since_us: int) -> None:
        """Drop clients that have not written since, and all that is kept for them."""
        for client in clients:
            known = self._clients.get(client)
            if known is not None and known.used_us <= silent_since_us:
                del self._clients[client]

    @property
    def kept_bytes(self) -> int:
        """About how many bytes the kept answers hold on to."""
        return sum(known.kept_bytes for known in self._clients.values())

    def silent_since(self, time_us: int) -> tuple[bytes, ...]:
        """Return the clients that have not written after `time_us`."""
        return tuple(client for client, known in self._clients.items() if known.used_us <= time_us)

    def states(self) -> Iterator[ClientState]:
        """Yield every client, for a snapshot."""
        for client, known in self._clients.items():
            yield ClientState(client, known.low, known.since_us, known.used_us)

    def results(self) -> Iterator[KeptResult]:
        """Yield every kept answer, for a snapshot."""
        for client, known in self._clients.items():
            for request, reply in known.results.items():
                yield KeptResult(client, request, reply)

    def install(self, clients: Iterable[ClientState], results: Iterable[KeptResult]) -> None:
        """Add what a snapshot brought."""
        for state in clients:
            self._clients[state.client] = Client(state.low, state.since_us, state.used_us)
        for kept in results:
            # Clients come before their answers; one that does not is no reason to end this process.
            client = self._clients.get(kept.client)
            if client is not None:
                reply = kept.reply
                if type(reply) is wire.EncodedSession:
                    # What came is a view of the whole frame, which would be held on to.
                    reply = wire.EncodedSession(reply.request, reply.state.copy())
                client.add(kept.request, reply)
