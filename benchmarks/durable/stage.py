"""What the parts share: how much of it, where the servers keep their files, and the contenders."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec
from rich.console import Console

from benchmarks.clients import ClientProcess, ContenderError
from benchmarks.contenders.catalogue import Contender
from benchmarks.durable.figures import FSYNC, INTERVAL, NONE, REDIS, Results
from benchmarks.orders import Choose, Fill
from benchmarks.processes import MissingError, Server
from benchmarks.run_log import RunLog
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.redis import RedisServer
from greenroom_cluster.config import Durability

AnyServer = TypeVar("AnyServer", bound=Server)

SIZE = 300
MODES: dict[str, Durability] = {NONE: "none", INTERVAL: "interval", FSYNC: "fsync"}
_CLUSTER_CLIENT = Contender("greenroom:ClusterClient", "cluster")
REDIS_CLIENT = Contender("redis_py:RedisClient", "redis")
REDIS_WAIT_CLIENT = Contender("redis_py:RedisWaitClient", "redis_replicated")


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done: `seconds` of one measurement, `stored` sessions of 300 bytes, turns.

    For the space on disk, `slices` of sessions of 4 KiB are written `rewrites` times over, `pace` a second.
    """

    rounds: int = 8
    seconds: float = 1.5
    written: int = 10_000
    stored: int = 1_000_000
    restarts: int = 3
    slices: int = 16
    rewrites: int = 5
    pace: int = 3_000
    limit_seconds: float = 300.0


FULL = Scale()
QUICK = Scale(rounds=2, seconds=0.3, written=500, stored=2_000, restarts=1, slices=1, rewrites=1, pace=6_000)


class Stage(RunLog):
    """One run: its scale, where servers keep files, where to report, and what came of it."""

    def __init__(self, scale: Scale, directory: Path | None, console: Console) -> None:
        super().__init__(console)
        self.scale = scale
        self.directory = directory
        self.results = Results()

    @contextmanager
    def cluster(self, name: str) -> Iterator["Party[ClusterServer]"]:
        """Run a cluster in the mode of that name, with a client."""
        with self._party(name, ClusterServer(durability=MODES[name], directory=self.directory)) as party:
            yield party

    @contextmanager
    def redis(self, replicas: int, contender: Contender) -> Iterator["Party[RedisServer] | None"]:
        """Run Redis with its append-only file, and a client; None if something is not installed."""
        with ExitStack() as stack:
            party = None
            server = RedisServer(replicas=replicas, durable=True, directory=self.directory)
            try:
                party = stack.enter_context(self._party(REDIS, server, contender))
            except (MissingError, ContenderError) as error:
                self.skip(REDIS, error)
            yield party

    @contextmanager
    def _party(
        self, name: str, server: AnyServer, contender: Contender = _CLUSTER_CLIENT
    ) -> Iterator["Party[AnyServer]"]:
        with server:
            client = ClientProcess(contender, server)
            try:
                self.versions |= {**server.versions, **client.versions}
                yield Party(name, server, client)
            finally:
                client.close()


class Party(Generic[AnyServer]):
    """One contender that takes part: its servers and a client."""

    def __init__(self, name: str, server: AnyServer, client: ClientProcess) -> None:
        self.name = name
        self.server = server
        self.client = client

    def fill(self, count: int, size: int = SIZE) -> float:
        """Store sessions; return how many seconds that took."""
        return self.client.do(Fill(first=0, count=count, size=size))

    def choose(self, count: int, size: int = SIZE, first: int = 0) -> None:
        """Have the client work on these sessions; one of them is compared with what was stored."""
        self.client.do(Choose(first=first, total=count, sample=count, size=size))


class Counting(Protocol):
    """Servers that can tell how many sessions they hold."""

    def stored(self) -> int:
        """Return how many."""


def demand_all(name: str, server: Counting, count: int) -> None:
    """Raise ContenderError unless this many sessions are there."""
    found = server.stored()
    if found != count:
        raise ContenderError(f"{name} has {found:,} of {count:,} sessions")
