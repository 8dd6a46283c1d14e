"""Exactly once: the answers that clients have not confirmed yet (RIFL, Lee et al., SOSP 2015).

An answer is kept with the client that asked, as part of the replicated state, until the client says that it
no longer waits for it. A repeat of the request then gets the same answer instead of a second effect, also
from another primary.
"""

from collections.abc import Iterable, Iterator

from greenroom import wire
from greenroom_cluster.shard.records import ClientState, KeptResult


class Client:
    """What a shard knows of one client: requests below `low` are answered for good."""

    __slots__ = ("low", "results", "used_us")

    def __init__(self, low: int, used_us: int) -> None:
        self.low = low
        self.used_us = used_us
        self.results: dict[int, wire.Reply] = {}


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

    def keep(self, client: bytes, request: int, low: int, time_us: int, reply: wire.Reply) -> None:
        """Keep the answer to a request and drop those below the client's low-watermark."""
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = Client(low, time_us)
        elif low > known.low:
            known.low = low
            results = known.results
            if results:
                # Requests of one client arrive nearly in order, so the old ones stand in front.
                for answered in [number for number in results if number < low]:
                    del results[answered]
        known.used_us = time_us
        if request >= known.low:
            known.results[request] = reply

    def forget(self, clients: Iterable[bytes], silent_since_us: int) -> None:
        """Drop clients that have not written since, and all that is kept for them."""
        for client in clients:
            known = self._clients.get(client)
            if known is not None and known.used_us <= silent_since_us:
                del self._clients[client]

    def silent_since(self, time_us: int) -> tuple[bytes, ...]:
        """Return the clients that have not written after `time_us`."""
        return tuple(client for client, known in self._clients.items() if known.used_us <= time_us)

    def states(self) -> Iterator[ClientState]:
        """Yield every client, for a snapshot."""
        for client, known in self._clients.items():
            yield ClientState(client, known.low, known.used_us)

    def results(self) -> Iterator[KeptResult]:
        """Yield every kept answer, for a snapshot."""
        for client, known in self._clients.items():
            for request, reply in known.results.items():
                yield KeptResult(client, request, reply)

    def install(self, clients: Iterable[ClientState], results: Iterable[KeptResult]) -> None:
        """Add what a snapshot brought."""
        for state in clients:
            self._clients[state.client] = Client(state.low, state.used_us)
        for kept in results:
            # Clients come before their answers; one that does not is no reason to end this process.
            client = self._clients.get(kept.client)
            if client is not None:
                client.results[kept.request] = kept.reply
