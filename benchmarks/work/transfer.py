"""(e) A replica is lost and comes back empty: time until everything has two again, and its effect on others.

Half a second of the 80/20 mix at a time is measured while the state is transferred; each such slice has its
own p99.
"""

import time

from benchmarks.orders import Measure, Measured
from benchmarks.processes import Server
from benchmarks.results import TransferReading
from benchmarks.samples import Sample
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.ports import until, until_listening
from benchmarks.servers.redis import CLIENT_HOST, RedisServer
from benchmarks.stage import Part, Stage
from benchmarks.work.throughput import without_distribution
from greenroom import UnavailableError

NAMES = ("greenroom", "redis_py")
SIZE = 4096
SAMPLE = 10_000
_SLICE = Measure(work="mix", callers=8, seconds=0.5, period_seconds=0.002, tolerant=True)
_POLL_SECONDS = 0.05
_LIMIT_SECONDS = 600.0


def run(stage: Stage) -> None:
    """Fill, lose a replica, and watch it come back; several times."""
    with stage.clients(stage.asked(*NAMES), {"redis": lambda: RedisServer(replicas=1)}) as parts:
        sessions = stage.scale.transfer_bytes // SIZE
        for part in parts.values():
            part.fill(sessions, SIZE)
            part.choose(sessions, SAMPLE, SIZE)
        for turn in range(stage.scale.transfers):
            for name, part in parts.items():
                stage.say(f"transfer: {name}, round {turn + 1} of {stage.scale.transfers}")
                try:
                    stage.results.transfers.append(_transfer(name, part, sessions * SIZE))
                except RuntimeError as error:
                    stage.skip(f"{name}, round {turn + 1}", error)


class _Replica:
    """The second server of a pair: lost, started, back."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def lose(self) -> None:
        """Kill it and wait until the other one serves everything alone."""
        match self._server:
            case ClusterServer() as cluster:
                cluster.kill_node(1)
                until(lambda: _alone(cluster), "the other node serves alone")
            case RedisServer() as redis:
                redis.kill(1)

    def start(self) -> None:
        """Start it, empty."""
        match self._server:
            case ClusterServer() as cluster:
                cluster.start_node(1)
            case RedisServer() as redis:
                redis.restart(1)

    def serving(self) -> bool:
        """Whether its process takes part."""
        match self._server:
            case ClusterServer() as cluster:
                try:
                    actors = cluster.status().actors
                    return any(a.slot == "n2/0" and a.state == "up" and a.reachable for a in actors)
                except UnavailableError:
                    return False
            case RedisServer() as redis:
                until_listening(CLIENT_HOST, redis.ports[1])
        return True

    def whole(self) -> bool:
        """Whether everything has two replicas again."""
        match self._server:
            case ClusterServer() as cluster:
                return cluster.is_whole()
            case RedisServer() as redis:
                return redis.has_loaded(1)
        return True


def _alone(cluster: ClusterServer) -> bool:
    try:
        states = cluster.status().states()
    except UnavailableError:
        return False
    return not states["unavailable"] and not states["full"]


def _transfer(name: str, part: Part, stored_bytes: int) -> TransferReading:
    assert part.server is not None
    before = part.client.measure(_SLICE)
    replica = _Replica(part.server)
    replica.lose()
    began = time.monotonic()
    replica.start()
    startup = seconds = 0.0
    during: list[Sample] = []
    while not seconds:
        part.client.begin(_SLICE)
        while not part.client.answered(_POLL_SECONDS):
            startup = startup or (time.monotonic() - began if replica.serving() else 0.0)
            seconds = seconds or (time.monotonic() - began if startup and replica.whole() else 0.0)
        during.append(without_distribution(part.client.finish(Measured).sample))
        if time.monotonic() - began > _LIMIT_SECONDS:
            raise RuntimeError(f"{name} had not two replicas again after {_LIMIT_SECONDS:g} s")
    return TransferReading(
        contender=name,
        stored_bytes=stored_bytes,
        seconds=seconds,
        startup=startup,
        before=without_distribution(before),
        during=during,
    )
