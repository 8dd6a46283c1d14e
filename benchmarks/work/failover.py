"""(d) Failures under load, ours beside Redis with Sentinel: time to recover, operations failed, writes lost.

Three of ours (a node with one actor each) beside a Redis master with two replicas and three sentinels. 64
callers write one session after another and read what they wrote, pausing between; afterwards everything that
was acknowledged is read once more.

Scenarios: `actor_killed` (SIGKILL of the process that serves; of Redis it is the same as the next),
`node_killed` (all of a host's processes at once), `cut_from_replicas` (the primary's links to its replicas go
silent, those to clients and to coordinator or sentinels do not), `cut_from_majority` (those go silent too).
After a cut the links heal, and what was written on either side is looked for.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from benchmarks.clients import ClientProcess, ContenderError
from benchmarks.contenders.catalogue import Contender
from benchmarks.orders import Audit, Audited, Choose, Fill, Record, Recorded
from benchmarks.processes import MissingError
from benchmarks.results import FailoverReading
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.ports import until
from benchmarks.servers.redis import RedisServer
from benchmarks.stage import Stage

CALLERS = 64
SIZE = 300
PAUSE_SECONDS = 0.02
LEAD_SECONDS = 2.0
CUTS = frozenset({"cut_from_replicas", "cut_from_majority"})
_SERVED_SECONDS = 1.0  # a caller that was answered so shortly before the end is served
_NOTICED_SECONDS = 0.25
_NODES = 3

REDIS = {
    "redis_sentinel": Contender("redis_py:SentinelClient", "redis", about="SET: the master acknowledges"),
    "redis_sentinel_strict": Contender(
        "redis_py:SentinelClient",
        "redis",
        about="SET; a master that hears of no replica for a second takes no writes (min-replicas-to-write 1)",
    ),
    "redis_sentinel_wait": Contender("redis_py:SentinelWaitClient", "redis", about="SET + WAIT 1"),
}
STRICT = frozenset({"redis_sentinel_strict"})
OURS = Contender("greenroom:ClusterClient", "cluster")


class Ways(NamedTuple):
    """How to make servers fail, how to heal them, and whether they agree again."""

    fail: Callable[[], None]
    heal: Callable[[], None]
    settled: Callable[[], bool]


def run(stage: Stage) -> None:
    """Go through every scenario with every contender, several times."""
    for turn in range(stage.scale.failovers):
        for scenario in stage.scale.scenarios:
            if stage.asked("greenroom"):
                _attempt(stage, turn, scenario, "greenroom", partial(_ours, stage, scenario))
            if stage.asked("redis_py") and scenario != "actor_killed":
                for name in REDIS:
                    _attempt(stage, turn, scenario, name, partial(_redis, stage, name, scenario))


def _attempt(stage: Stage, turn: int, scenario: str, name: str, take: Callable[[], FailoverReading]) -> None:
    if name in stage.skipped:
        return
    stage.say(f"failover: {scenario} of {name}, round {turn + 1} of {stage.scale.failovers}")
    try:
        stage.results.failovers.append(take())
    except MissingError as error:
        stage.skip(name, error)
    except (ContenderError, RuntimeError) as error:
        stage.skip(f"{name} at {scenario}, round {turn + 1}", error)


def _ours(stage: Stage, scenario: str) -> FailoverReading:
    with ClusterServer(nodes=_NODES, apart=scenario in CUTS) as server:
        faults: dict[str, Callable[[], None]] = {
            "actor_killed": lambda: server.kill_actor(0),
            "node_killed": lambda: server.kill_node(0),
            "cut_from_replicas": lambda: server.cut_off(0, from_coordinator=False),
            "cut_from_majority": lambda: server.cut_off(0, from_coordinator=True),
        }
        with ExitStack() as stack:
            client = ClientProcess(OURS, server)
            stage.versions |= client.versions
            stack.callback(client.close)
            return _take(
                stage, "greenroom", scenario, client, Ways(faults[scenario], server.heal, server.is_settled)
            )


def _redis(stage: Stage, name: str, scenario: str) -> FailoverReading:
    with RedisServer(
        replicas=_NODES - 1, sentinels=3, apart=scenario in CUTS, strict=name in STRICT
    ) as server:
        stage.versions |= server.versions
        faults: dict[str, Callable[[], None]] = {
            "node_killed": lambda: server.kill(0),
            "cut_from_replicas": lambda: server.cut_off_master(from_sentinels=False),
            "cut_from_majority": lambda: server.cut_off_master(from_sentinels=True),
        }
        with ExitStack() as stack:
            client = ClientProcess(REDIS[name], server)
            stage.versions |= client.versions
            stack.callback(client.close)
            return _take(
                stage, name, scenario, client, Ways(faults[scenario], server.heal, server.is_settled)
            )


def _take(
    stage: Stage,
    name: str,
    scenario: str,
    client: ClientProcess,
    ways: Ways,
) -> FailoverReading:
    scale = stage.scale
    cut_seconds = scale.cut_seconds if scenario in CUTS else 0.0
    seconds = LEAD_SECONDS + cut_seconds + scale.settle_seconds
    sessions = CALLERS * (int(seconds / PAUSE_SECONDS) + 2)
    client.do(Fill(first=0, count=sessions, size=SIZE))
    client.do(Choose(total=sessions, sample=sessions, size=SIZE))
    client.begin(Record(callers=CALLERS, seconds=seconds, pause_seconds=PAUSE_SECONDS))
    time.sleep(LEAD_SECONDS)
    fault_at = time.monotonic()
    ways.fail()
    if scenario in CUTS:
        time.sleep(cut_seconds)
        ways.heal()
    recorded = client.finish(Recorded)
    # Split in two, Redis takes a while to agree on a master again; only then is it known what is lost.
    until(ways.settled, "the servers agree again")
    client.begin(Audit())
    return reading_of(scenario, name, recorded, client.finish(Audited), fault_at)


def reading_of(
    scenario: str, contender: str, recorded: Recorded, audited: Audited, fault_at: float
) -> FailoverReading:
    """Return what the callers went through."""
    # Reads and writes apart: a server that answers the one kind and not the other would look served.
    outages = [outage(times, fault_at, recorded.ended) for times in (*recorded.reads, *recorded.writes)]
    answered = [sorted(reads + writes) for reads, writes in zip(recorded.reads, recorded.writes, strict=True)]
    return FailoverReading(
        scenario=scenario,
        contender=contender,
        unavailable=max((longest for longest, _ in outages), default=0.0),
        recovered=max((end for _, end in outages), default=0.0),
        whole=all(times and times[-1] > recorded.ended - _SERVED_SECONDS for times in answered),
        operations=sum(map(len, answered)) + len(recorded.failures),
        failed=len(recorded.failures),
        errors=recorded.errors,
        acknowledged_writes=audited.acknowledged_writes,
        lost_writes=audited.lost_writes,
        stale_reads=recorded.stale_reads,
    )


def outage(answered: list[float], fault_at: float, ended: float) -> tuple[float, float]:
    """Return the longest wait for an answer that ended after the fault, and when the last one ended.

    Times rise; a wait that had not ended when the recording did ends there. The second is counted from the
    fault, and 0 if there was no wait that anybody would notice: then there is nothing to recover from.
    """
    times = [*answered, ended]
    before = [time for time in times if time <= fault_at]
    last = before[-1] if before else fault_at
    longest = recovered = 0.0
    for time_ in times[len(before) :]:
        wait = time_ - max(last, fault_at)
        longest = max(longest, wait)
        if wait >= _NOTICED_SECONDS:
            recovered = time_ - fault_at
        last = time_
    return longest, recovered
