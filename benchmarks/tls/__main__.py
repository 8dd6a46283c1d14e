"""Measure what mutual TLS costs: `uv run --group bench python -m benchmarks.tls [--quick] [--json]`.

Clusters and Redis are started here, on loopback. A full run writes docs/benchmarks/tls.md and its raw
results.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import msgspec
import trio

from benchmarks import handshakes, own_page
from benchmarks.clients import ClientProcess
from benchmarks.contenders.catalogue import Contender
from benchmarks.orders import Choose, Fill
from benchmarks.processes import Server
from benchmarks.run_log import RunLog
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.redis import RedisServer
from benchmarks.tls import idle
from benchmarks.tls.figures import PLAIN, REDIS_PLAIN, REDIS_TLS, TLS, Results, page, tables_of, verdicts_of
from benchmarks.work.throughput import Cell, in_turns
from greenroom_cluster import logs
from greenroom_cluster.logs import LogSettings

_SIZE, _SESSIONS = 300, 10_000
_ALL = (PLAIN, TLS, REDIS_PLAIN, REDIS_TLS)
_CELLS: tuple[Cell, ...] = (("get", 64, _ALL), ("update", 64, _ALL), ("get", 1, _ALL), ("update", 1, _ALL))
_NODES = 2
_OURS = Contender("greenroom:ClusterClient", "cluster")
_REDIS = Contender("redis_py:RedisWaitClient", "redis_replicated")


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done: turns, seconds of one measurement, stores that idle."""

    rounds: int = 8
    seconds: float = 1.5
    stores: int = 200
    attacks: int = 3
    attack: handshakes.Scale = handshakes.Scale()
    kills: int = 10


FULL = Scale()
QUICK = Scale(
    rounds=1,
    seconds=0.3,
    stores=20,
    attacks=1,
    attack=handshakes.Scale(connections=200, before_seconds=1.0, after_seconds=0.5),
    kills=1,
)


class Measuring:
    """One run."""

    def __init__(self, scale: Scale, log: RunLog) -> None:
        self.results = Results()
        self.scale = scale
        self._log = log

    def run(self) -> None:
        """Measure everything."""
        with ExitStack() as stack:
            plain, tls = (stack.enter_context(ClusterServer(_NODES, tls=tls)) for tls in (False, True))
            with ExitStack() as clients:
                self.results.speed += in_turns(
                    self._clients(clients, {PLAIN: plain, TLS: tls}),
                    _CELLS,
                    rounds=self.scale.rounds,
                    seconds=self.scale.seconds,
                    size=_SIZE,
                    say=lambda text: self._log.say(f"speed: {text}"),
                )
            for name, server in ((PLAIN, plain), (TLS, tls)):
                self._log.say(f"idle connections: {name}")
                # One connection to each node and one to each node's actor.
                self.results.idle.append(idle.measure(name, server, 2 * _NODES, self.scale.stores))
        self._log.say("half-open handshakes beside callers")
        attacks, attack = self.scale.attacks, self.scale.attack
        self.results.attacks = trio.run(handshakes.half_open, attacks, attack, self._log.say)
        self._log.say("kills of primaries")
        self.results.kills = trio.run(handshakes.kills, self.scale.kills, self._log.say)

    def _clients(self, stack: ExitStack, ours: dict[str, Server]) -> dict[str, ClientProcess]:
        clients = {name: stack.enter_context(self._client(_OURS, server)) for name, server in ours.items()}
        for name, tls in ((REDIS_PLAIN, False), (REDIS_TLS, True)):
            client = self._log.attempt(name, partial(self._redis, stack, tls=tls))
            if client is not None:
                clients[name] = client
        return clients

    def _redis(self, stack: ExitStack, *, tls: bool) -> ClientProcess:
        server = stack.enter_context(RedisServer(replicas=1, tls=tls))
        return stack.enter_context(self._client(_REDIS, server))

    @contextmanager
    def _client(self, contender: Contender, server: Server) -> Iterator[ClientProcess]:
        with closing(ClientProcess(contender, server)) as client:
            self._log.versions |= {**server.versions, **client.versions}
            client.do(Fill(first=0, count=_SESSIONS, size=_SIZE))
            client.do(Choose(total=_SESSIONS, sample=_SESSIONS, size=_SIZE))
            yield client


def main() -> None:
    """Measure as the options say; see `own_page.command`."""
    own_page.command("tls", __doc__, measured, tables_of=tables_of, verdicts_of=verdicts_of, page=page)


def measured(log: RunLog, quick: bool) -> Results:  # noqa: FBT001  as `own_page.command` gives it
    """Return what was measured."""
    # Of the clusters in this process, which would tell on stdout of what is killed here.
    logs.configure(LogSettings(level="error"))
    measuring = Measuring(QUICK if quick else FULL, log)
    measuring.run()
    measuring.results.run = log.ended(
        kind="quick" if quick else "full", rounds=measuring.scale.rounds, seconds=measuring.scale.seconds
    )
    return measuring.results


if __name__ == "__main__":
    main()
