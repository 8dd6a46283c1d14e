"""A primary, and what it says to clients on their connections."""

from typing import Any

from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import as_received
from tests.cluster.shard.probe import B, Probe

WRITER = 3


class PrimaryStage:
    """A probe as the primary. Writes are committed at once; `said` is what was said, by connection."""

    def __init__(self, settings: HostSettings | None = None) -> None:
        self.probe = Probe(settings)
        self.probe.become_primary()
        self.numbers = 0
        self.said: dict[int, list[Any]] = {}

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def note(self, effects: list[fx.HostEffect]) -> list[fx.HostEffect]:
        for effect in effects:
            if isinstance(effect, fx.ReplyToClient):
                self.said.setdefault(effect.connection, []).append(as_received(effect.message))
        return effects

    def ask(self, connection: int, *requests: Any, client: bytes = b"", namespace: str = "") -> list[Any]:
        """Send requests on a connection; return what was said on it at once."""
        known = len(self.said.get(connection, []))
        client = client or bytes([connection]) * 16
        event = ins.ClientRequests(connection, client, list(requests), namespace=namespace)
        self.note(self.probe.step(event))
        return self.said.get(connection, [])[known:]

    def write(
        self, request: Any, connection: int = WRITER, *, commit: bool = True, namespace: str = ""
    ) -> None:
        """Send a command; have it logged by the backup."""
        self.ask(connection, request, namespace=namespace)
        if commit:
            self.commit()

    def commit(self) -> None:
        for sent in self.probe.prepares():
            self.note(self.probe.step(ins.PeerMessages(B, [PrepareOk(sent.batch)])))
