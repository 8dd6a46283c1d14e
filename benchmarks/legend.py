"""What stands above the tables: where, when and how it was measured, and what the names mean. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.results import BUSY, Results
from benchmarks.work.failover import REDIS
from benchmarks.work.scaling import ONE_ACTOR, TWO_ACTORS

WORKS = {
    "get": "read a session",
    "update": "replace a session as a whole",
    "patch": "set one key of a session",
    "mix": "of five operations four get and one update",
    "web": "a web request: a get, and a patch too in one of ten",
}
_ABOUT = {
    **{name: each.about for name, each in CONTENDERS.items()},
    ONE_ACTOR: "ClusterStore, 1 node of one actor, unreplicated",
    TWO_ACTORS: "ClusterStore, 2 nodes of one actor each, replicated",
    **{name: f"redis-py, Redis with Sentinel, {each.about}" for name, each in REDIS.items()},
}
_FAILURES = {
    "actor_killed": "SIGKILL of the process that serves",
    "node_killed": "SIGKILL of all processes of the host that serves",
    "cut_from_replicas": "the links between the primary and its replicas go silent, and heal later",
    "cut_from_majority": "those to coordinator or sentinels too; callers still reach the primary",
}


class Section(msgspec.Struct, frozen=True):
    """A heading and the lines below it."""

    title: str
    lines: list[str]


def sections_of(results: Results) -> list[Section]:
    """Return everything that has lines."""
    works = dict.fromkeys(each.work for each in (*results.throughput, *results.scaling))
    failures = dict.fromkeys(each.scenario for each in results.failovers)
    used = [f"{name} {version}" for name, version in sorted(results.versions.items())]
    machine = [f"{name}: {value}" for name, value in results.machine.items()]
    found = [
        Section("Machine", [*machine, *([f"versions: {', '.join(used)}"] if used else [])]),
        Section("Runs", _runs(results)),
        Section("Contenders", _named(_contenders(results), _ABOUT)),
        Section("Works", _named(works, WORKS)),
        Section("Failures", _named(failures, _FAILURES)),
        Section("Left out", [f"{name}: {reason}" for name, reason in results.skipped.items()]),
    ]
    return [section for section in found if section.lines]


def _named(names: Iterable[str], about: Mapping[str, str]) -> list[str]:
    return [f"`{name}`: {about[name]}" for name in names if name in about]


def _contenders(results: Results) -> list[str]:
    """Return the names that stand in the tables, in the catalogue's order."""
    seen = {each.contender for each in (*results.throughput, *results.scaling)}
    seen |= {each.contender for each in (*results.stored, *results.sweeps)}
    seen |= {each.contender for each in results.failovers} | {each.contender for each in results.transfers}
    return [name for name in _ABOUT if name in seen]


def _runs(results: Results) -> list[str]:
    if not results.taken:
        return []
    lines = []
    for part, when in results.taken.items():
        rounds = rounds_told(_TURNS[part](results)) if part in _TURNS else ""
        lines.append(f"{part}: {when}{', ' if rounds else ''}{rounds}")
    return [
        *lines,
        f"above a load of {BUSY} before the run a machine is busy: figures are worse then, and less steady",
        "a quick run is a small one, to see that everything works: its figures may be noise",
    ]


def rounds_told(turns: Iterable[int]) -> str:
    """Return how many rounds there were; not all contenders and works have the same."""
    seen = sorted(set(turns))
    if not seen:
        return ""
    if len(seen) > 1:
        return f"{seen[0]} to {seen[-1]} rounds"
    return f"{seen[0]} round{'s' if seen[0] > 1 else ''}"


_TURNS: dict[str, Callable[[Results], Iterable[int]]] = {
    "throughput": lambda results: Counter(
        (each.contender, each.work, each.size, each.callers) for each in results.throughput
    ).values(),
    "scaling": lambda results: Counter(
        (each.contender, each.work, each.clients) for each in results.scaling
    ).values(),
    "stored": lambda results: [len(each.crowded) for each in results.stored],
    "failover": lambda results: Counter(
        (each.scenario, each.contender) for each in results.failovers
    ).values(),
    "transfer": lambda results: Counter(each.contender for each in results.transfers).values(),
}
