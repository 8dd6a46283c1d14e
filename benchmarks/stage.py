"""What the parts of the work share: how much of it, what to leave out, and the processes of contenders."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import msgspec
from rich.console import Console

from benchmarks.clients import ClientProcess
from benchmarks.contenders.catalogue import CONTENDERS, Contender, ServerName
from benchmarks.orders import WORKS, Choose, Fill, WorkName
from benchmarks.processes import Server
from benchmarks.results import Results
from benchmarks.run_log import RunLog
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.echo import EchoServer
from benchmarks.servers.memcached import MemcachedServer
from benchmarks.servers.redis import RedisServer

RANGE = 10_000_000
"""Session numbers that belong to one contender, so that those who share a server do not meet."""

SERVERS: dict[ServerName, Callable[[], Server]] = {
    "echo": EchoServer,
    "cluster": ClusterServer,
    "redis": RedisServer,
    "redis_replicated": lambda: RedisServer(replicas=1),
    "memcached": MemcachedServer,
}


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done. Seconds are of one measurement; sizes in bytes; `rounds` interleaved turns.

    `rounds_of_compared` come on top where a verdict rests on a throughput, lest the machine's noise decides.
    """

    rounds: int = 5
    seconds: float = 1.0
    sizes: tuple[int, ...] = (300, 4096, 65_536)
    callers: tuple[int, ...] = (1, 8, 64, 512)
    works: tuple[WorkName, ...] = WORKS
    rounds_of_larger: int = 3
    rounds_of_compared: int = 8
    client_counts: tuple[int, ...] = (1, 2, 4)
    stored: tuple[int, ...] = (10_000, 100_000, 1_000_000, 5_000_000)
    swept: int = 1_000_000
    sweep_seconds: float = 60.0
    paced_seconds: float = 20.0
    failovers: int = 3
    scenarios: tuple[str, ...] = ("actor_killed", "node_killed", "cut_from_replicas", "cut_from_majority")
    cut_seconds: float = 8.0
    settle_seconds: float = 15.0
    transfer_bytes: int = 1 << 30
    transfers: int = 3

    def rounds_of(self, part: str) -> int:
        """Return how many turns everyone takes in a part, but for those that are compared and take more."""
        return {"failover": self.failovers, "transfer": self.transfers}.get(part, self.rounds)


FULL = Scale()
QUICK = Scale(
    rounds=2,
    rounds_of_compared=0,
    seconds=0.4,
    sizes=(300,),
    callers=(1, 64),
    client_counts=(1, 2),
    stored=(2_000, 20_000),
    swept=5_000,
    sweep_seconds=10.0,
    paced_seconds=1.0,
    failovers=1,
    scenarios=("node_killed", "cut_from_majority"),
    cut_seconds=4.0,
    settle_seconds=4.0,
    transfer_bytes=1 << 24,
    transfers=1,
)


class Stage(RunLog):
    """One run: its scale, the contenders asked for, where to report, and what came of it.

    Each part is a run of the log.
    """

    def __init__(self, scale: Scale, names: tuple[str, ...], console: Console) -> None:
        super().__init__(console)
        self.scale = scale
        self.results = Results()
        self._names = names

    def asked(self, *names: str) -> list[str]:
        """Return those of the names that are to take part, all if none is given."""
        return [name for name in names or CONTENDERS if not self._names or name in self._names]

    @contextmanager
    def clients(
        self, names: list[str], servers: dict[ServerName, Callable[[], Server]] | None = None
    ) -> Iterator[dict[str, "Part"]]:
        """Start the contenders' servers and a client each; those with something missing are left out."""
        makers = {**SERVERS, **(servers or {})}
        with ExitStack() as stack:
            running: dict[ServerName, Server | None] = {"none": None}
            parts: dict[str, Part] = {}
            for name in names:
                contender = CONTENDERS[name]
                part = self.attempt(name, partial(self._begin, contender, running, makers, stack))
                if part is not None:
                    parts[name] = part
            yield parts

    def _begin(
        self,
        contender: Contender,
        running: dict[ServerName, Server | None],
        makers: dict[ServerName, Callable[[], Server]],
        stack: ExitStack,
    ) -> "Part":
        if contender.server not in running:
            server = stack.enter_context(makers[contender.server]())
            self.versions |= server.versions
            running[contender.server] = server
        part = Part(self, contender, running[contender.server])
        stack.callback(part.close)
        return part


class Part:
    """One contender that takes part: its servers and its client processes."""

    def __init__(self, stage: Stage, contender: Contender, server: Server | None) -> None:
        self.first = list(CONTENDERS.values()).index(contender) * RANGE
        self.contender = contender
        self.server = server
        self._stage = stage
        self.clients: list[ClientProcess] = []
        self.add_client()

    @property
    def client(self) -> ClientProcess:
        """The first client process."""
        return self.clients[0]

    def add_client(self) -> ClientProcess:
        """Start one more client process."""
        client = ClientProcess(self.contender, self.server)
        self._stage.versions |= client.versions
        self.clients.append(client)
        return client

    def fill(self, count: int, size: int, *, skip: int = 0, expires_at: float = 0.0) -> float:
        """Store `count` sessions after the first `skip`; return how many seconds that took."""
        return self.client.do(Fill(first=self.first + skip, count=count, size=size, expires_at=expires_at))

    def choose(self, total: int, sample: int, size: int) -> None:
        """Have every client work on `sample` of the first `total` sessions."""
        for client in self.clients:
            client.do(Choose(first=self.first, total=total, sample=sample, size=size))

    def close(self) -> None:
        """End the client processes."""
        for client in self.clients:
            client.close()
