"""How soon sessions are back: after everything was killed, and after one actor was, under load."""

import time
from collections.abc import Callable
from functools import partial

from benchmarks.clients import ContenderError
from benchmarks.durable.figures import (
    EMPTY_DIRECTORY,
    FSYNC,
    OWN_DIRECTORY,
    REDIS,
    RejoinReading,
    RestartReading,
)
from benchmarks.durable.stage import REDIS_CLIENT, SIZE, Party, Stage, demand_all
from benchmarks.durable.traffic import Traffic
from benchmarks.orders import Choose, Measure, Measured
from benchmarks.processes import MissingError
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.ports import until
from benchmarks.servers.redis import RedisServer
from greenroom import UnavailableError
from greenroom_cluster.cluster_status import ActorStatus

SAMPLE = 10_000
_LOAD = Measure(work="mix", callers=8, seconds=0.5, period_seconds=0.004, tolerant=True)
_PAUSE_SECONDS = 0.05
_LOOK_SECONDS = 0.005


def run(stage: Stage) -> None:
    """Fill both, restart both in turns, then kill one actor again and again."""
    count = stage.scale.stored
    with stage.cluster(FSYNC) as ours, stage.redis(0, REDIS_CLIENT) as redis:
        for party in (ours, redis):
            if party is not None:
                stage.say(f"recovery: {count:,} sessions are stored by {party.name}")
                party.fill(count)
        for turn in range(stage.scale.restarts):
            stage.say(f"recovery: restart {turn + 1} of {stage.scale.restarts}")
            stage.results.restarts.append(_restart_cluster(stage, ours, turn))
            if redis is not None:
                stage.results.restarts.append(_restart_redis(stage, redis, turn))
        if redis is not None:
            redis.server.kill(0)  # lest it takes part in what follows
        try:
            _rejoins(stage, ours)
        except MissingError as error:
            stage.skip("one actor killed under load", error)


# --- everything -------------------------------------------------------------------------------------------


def _restart_cluster(stage: Stage, party: Party[ClusterServer], turn: int) -> RestartReading:
    server = party.server
    server.kill_all()
    disk = sum(server.disk_bytes(index) for index in range(2))
    reading = _timed(stage, party.name, turn, disk, server.start_all, server.actors_begin, server.is_whole)
    demand_all(party.name, server, stage.scale.stored)
    return reading


def _restart_redis(stage: Stage, party: Party[RedisServer], turn: int) -> RestartReading:
    server = party.server
    server.kill(0)
    # Once started it has accepted a connection, which it does before it reads its file.
    reading = _timed(
        stage,
        party.name,
        turn,
        server.disk_bytes(0),
        partial(server.restart, 0),
        lambda: True,
        partial(server.serves, 0),
    )
    demand_all(REDIS, server, stage.scale.stored)
    return reading


def _timed(
    stage: Stage,
    name: str,
    turn: int,
    disk_bytes: int,
    start: Callable[[], None],
    is_up: Callable[[], bool],
    is_back: Callable[[], bool],
) -> RestartReading:
    began = time.monotonic()
    start()
    until(is_up, f"the processes of {name} are up", stage.scale.limit_seconds, _LOOK_SECONDS)
    up = time.monotonic()
    until(is_back, f"{name} is back", stage.scale.limit_seconds, _PAUSE_SECONDS)
    return RestartReading(
        round=turn,
        contender=name,
        stored=stage.scale.stored,
        startup=up - began,
        seconds=time.monotonic() - up,
        disk_bytes=disk_bytes,
        since="they are up",
    )


# --- one actor --------------------------------------------------------------------------------------------


def _rejoins(stage: Stage, party: Party[ClusterServer]) -> None:
    count, server = stage.scale.stored, party.server
    party.client.do(Choose(first=0, total=count, sample=min(count, SAMPLE), size=SIZE))
    for turn in range(stage.scale.restarts):
        stage.say(f"recovery: an actor is killed under load, {turn + 1} of {stage.scale.restarts}")
        stage.results.rejoins.append(_rejoin(stage, party, OWN_DIRECTORY, partial(server.kill_actor, 1)))

    def start_empty() -> None:
        server.kill_node(1)
        until(partial(_serves_alone, server), "the other node serves alone", stage.scale.limit_seconds)
        server.lose_disk(1)
        server.start_node(1)

    stage.say("recovery: the actor begins with an empty directory")
    stage.results.rejoins.append(_rejoin(stage, party, EMPTY_DIRECTORY, start_empty))


def _rejoin(stage: Stage, party: Party[ClusterServer], how: str, kill: Callable[[], None]) -> RejoinReading:
    """Kill an actor and watch until all is whole again, under load."""
    server = party.server
    before, sender = server.actor(1), server.actor(0).pid
    seconds, received = 0.0, 0
    with Traffic(party.client.pid) as traffic:
        began = time.monotonic()
        kill()
        while not seconds:
            party.client.begin(_LOAD)
            while not party.client.answered(_PAUSE_SECONDS):
                fresh = None if seconds else _whole_with(server, before)
                if fresh is not None:
                    seconds = time.monotonic() - began
                    received = traffic.look(fresh.pid, fresh.address, sender)
            party.client.finish(Measured)
            if time.monotonic() - began > stage.scale.limit_seconds:
                raise ContenderError(f"not whole again after {stage.scale.limit_seconds:g} s")
    return RejoinReading(how=how, stored=stage.scale.stored, seconds=seconds, received_bytes=received)


def _whole_with(server: ClusterServer, before: ActorStatus) -> ActorStatus | None:
    """Return the actor in the place of one that was killed, once every shard has both replicas."""
    try:
        status = server.status()
    except UnavailableError:
        return None
    if not status.healthy:
        return None
    for actor in status.actors:
        if actor.slot == before.slot and actor.state == "up" and actor.incarnation != before.incarnation:
            return actor
    return None


def _serves_alone(server: ClusterServer) -> bool:
    try:
        states = server.status().states()
    except UnavailableError:
        return False
    return not states["unavailable"] and not states["full"]
