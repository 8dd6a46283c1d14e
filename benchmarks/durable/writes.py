"""Replicated writes and reads in every mode, beside Redis with a synced append-only file, in turns."""

from contextlib import ExitStack

from benchmarks.clients import ClientProcess
from benchmarks.durable.figures import FSYNC, INTERVAL, NONE, REDIS
from benchmarks.durable.stage import REDIS_WAIT_CLIENT, SIZE, Stage
from benchmarks.work.throughput import Cell, in_turns

_CELLS: tuple[Cell, ...] = (
    ("update", 64, (NONE, INTERVAL, FSYNC, REDIS)),
    ("update", 1, (FSYNC, REDIS)),
    ("get", 64, (NONE, FSYNC)),
)


def run(stage: Stage) -> None:
    """Start all, store the same sessions everywhere, and have all take turns."""
    scale = stage.scale
    with ExitStack() as stack:
        clients: dict[str, ClientProcess] = {}
        for name in (NONE, INTERVAL, FSYNC):
            party = stack.enter_context(stage.cluster(name))
            party.fill(scale.written)
            party.choose(scale.written)
            clients[name] = party.client
        redis = stack.enter_context(stage.redis(1, REDIS_WAIT_CLIENT))
        if redis is not None:
            redis.fill(scale.written)
            redis.choose(scale.written)
            clients[REDIS] = redis.client
        stage.results.writes += in_turns(
            clients,
            _CELLS,
            rounds=scale.rounds,
            seconds=scale.seconds,
            size=SIZE,
            say=lambda text: stage.say(f"writes: {text}"),
        )
