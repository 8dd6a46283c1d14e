"""(b) Several client processes at once, against one actor and against two, beside the others."""

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from benchmarks.orders import Measure, Measured, WorkName
from benchmarks.processes import Server
from benchmarks.results import Reading
from benchmarks.samples import Sample
from benchmarks.servers.cluster import ClusterServer
from benchmarks.stage import Part, Stage
from benchmarks.work.throughput import turned

CALLERS = 64
SESSIONS = 1000
SIZE = 300
WORKS: tuple[WorkName, ...] = ("get", "update")
OTHERS = ("echo", "redis_py", "redis_wait", "valkey_glide", "emcache")
ONE_ACTOR = "greenroom_1_actor"
TWO_ACTORS = "greenroom_2_actors"


def run(stage: Stage) -> None:
    """Measure with each number of client processes, in turns."""
    with ExitStack() as stack:
        parts = stack.enter_context(stage.clients(stage.asked(*OTHERS)))
        ours = stage.asked("greenroom")
        if ours:
            for name, nodes in ((ONE_ACTOR, 1), (TWO_ACTORS, 2)):
                found = stack.enter_context(stage.clients(ours, {"cluster": _cluster_of(nodes)}))
                if found:
                    (parts[name],) = found.values()
        most = max(stage.scale.client_counts)
        for part in parts.values():
            while len(part.clients) < most:
                part.add_client()
            part.fill(SESSIONS, SIZE)
            part.choose(SESSIONS, SESSIONS, SIZE)
        for turn in range(stage.scale.rounds):
            stage.say(f"scaling: round {turn + 1} of {stage.scale.rounds}")
            for clients in stage.scale.client_counts:
                for work in WORKS:
                    for name in turned(list(parts), turn):
                        sample = _measure(parts[name], clients, work, stage.scale.seconds)
                        stage.results.scaling.append(
                            Reading(
                                round=turn,
                                contender=name,
                                work=work,
                                size=SIZE,
                                callers=CALLERS,
                                clients=clients,
                                sample=sample,
                            )
                        )


def _cluster_of(nodes: int) -> Callable[[], Server]:
    return lambda: ClusterServer(nodes=nodes)


def _measure(part: Part, clients: int, work: WorkName, seconds: float) -> Sample:
    """Have so many client processes work at the same time; return what they did together."""
    assert part.server is not None
    order = Measure(work=work, callers=CALLERS, seconds=seconds)
    for client in part.clients[:clients]:
        client.warm_up(order)
    before = part.server.cpu_seconds()
    for client in part.clients[:clients]:
        client.begin(order)
    samples = [client.finish(Measured).sample for client in part.clients[:clients]]
    return together(samples, part.server.cpu_seconds() - before)


def together(samples: list[Sample], server_seconds: float) -> Sample:
    """Return several processes' samples as one: rates add up, of latencies the worst process counts."""
    operations = sum(sample.operations for sample in samples)
    return msgspec.structs.replace(
        samples[0],
        operations=operations,
        rate=sum(sample.rate for sample in samples),
        p50=max(sample.p50 for sample in samples),
        p99=max(sample.p99 for sample in samples),
        p9999=max(sample.p9999 for sample in samples),
        worst=max(sample.worst for sample in samples),
        client_cpu=sum(sample.client_cpu * sample.operations for sample in samples) / max(1, operations),
        server_cpu=server_seconds / max(1, operations),
        errors=sum(sample.errors for sample in samples),
        distribution=[],
    )
