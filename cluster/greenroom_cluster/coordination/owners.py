"""Which supervisor owns which node name, so that two with the same name do not fight.

An owner is known by the identity in its hello and by its connection. It keeps the name while it is connected
and heard. A restarted supervisor, with its new identity, gets the name once the former connection has ended.
Until then its requests are refused, and repeated: its node is there all the same, and about to come.
None of this is on disk: after a start of the coordinator the first supervisor heard under a known name owns
it, while one with another address must first wait as long as it takes to count as silent.
"""

from collections.abc import Collection, Iterable

from greenroom.cluster_map import NodeEntry
from greenroom_cluster.coordination.messages import NAME_TAKEN

NOWHERE = "unknown.invalid:1"
"""Address of nodes and actors of which no more than the names are known: nobody is there."""


class Owners:
    """The owners of node names, and when they were last heard, in nanoseconds of the coordinator's clock.

    A name is free once its owner was silent for `silent_ns`.
    """

    def __init__(self, names: Iterable[str], silent_ns: int, now_ns: int) -> None:
        self._silent_ns = silent_ns
        # Timers start now: no one could send us heartbeats while we were away.
        self._heard_ns = dict.fromkeys(names, now_ns)
        self._owners: dict[str, tuple[bytes, int | None]] = {}
        # Who has asked for a name, by connection, and when last.
        self._seekers: dict[int, tuple[str, int]] = {}

    def objection(
        self, now_ns: int, sender: bytes, name: str, known: NodeEntry | None, address: str = ""
    ) -> tuple[str, str]:
        """Return why `sender` may not speak for a name, and the code of that reason; ("", "") if it may.

        `known` is the node that has the name now, `address` the one that it would get.
        """
        if known is None:
            return "", ""
        owner = self._owners.get(name)
        silent = self.silence_ns(now_ns, name) >= self._silent_ns
        if silent or (owner is not None and (owner[0] == sender or owner[1] is None)):
            return "", ""
        if owner is not None:
            return f"node {name} is alive at {known.address}: give this one another --name", NAME_TAKEN
        if address in {"", known.address} or known.address == NOWHERE:
            return "", ""
        wait = f"which shows within {self._silent_ns / 1e9:g} s of the coordinator's start"
        return f"node {name} was at {known.address} and may be alive, {wait}", ""

    def is_owner(self, sender: bytes, name: str) -> bool:
        """Whether this supervisor owns the name, even between two of its connections."""
        owner = self._owners.get(name)
        return owner is not None and owner[0] == sender

    def is_free(self, name: str) -> bool:
        """Whether no one was heard under that name since the coordinator's start."""
        return name not in self._owners

    def owns_any(self, sender: bytes) -> bool:
        """Whether this supervisor owns a name."""
        return any(owner[0] == sender for owner in self._owners.values())

    def heard(self, now_ns: int, sender: bytes, connection: int, name: str) -> None:
        """Note a message under that name, and make its sender the owner."""
        self._owners[name] = (sender, connection)
        self._heard_ns[name] = now_ns

    def beat(self, now_ns: int, sender: bytes, connection: int, name: str) -> bool:
        """Note a heartbeat; False if its sender is not the owner."""
        owner = self._owners.get(name)
        if owner is not None and owner[0] != sender:
            return False
        self.heard(now_ns, sender, connection, name)
        return True

    def sought(self, now_ns: int, connection: int, name: str) -> None:
        """Note a request for a name that is known, whatever comes of it."""
        if name in self._heard_ns:
            self._seekers[connection] = (name, now_ns)

    def is_sought(self, now_ns: int, name: str) -> bool:
        """Whether somebody has asked for that name, on a connection that stands, and not long ago."""
        times = [at for sought, at in self._seekers.values() if sought == name]
        return bool(times) and now_ns - max(times) < self._silent_ns

    def closed(self, connection: int) -> None:
        """Note the end of a connection."""
        self._seekers.pop(connection, None)
        for name, (sender, current) in self._owners.items():
            if current == connection:
                self._owners[name] = (sender, None)

    def silence_ns(self, now_ns: int, name: str) -> int:
        """Return how long nothing was heard under that name; for an unknown one, time starts now."""
        return now_ns - self._heard_ns.setdefault(name, now_ns)

    def forgive(self, paused_ns: int) -> None:
        """Shorten all silences by a time in which no one could be heard."""
        self._heard_ns = {name: heard + paused_ns for name, heard in self._heard_ns.items()}
        self._seekers = {key: (name, at + paused_ns) for key, (name, at) in self._seekers.items()}

    def keep(self, names: Collection[str]) -> None:
        """Forget all other names."""
        for kept in (self._heard_ns, self._owners):
            for name in [name for name in kept if name not in names]:
                del kept[name]
