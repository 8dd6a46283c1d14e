"""What stands above the tables: where, when and how it was measured, and what the names mean. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.results import BUSY, Results, Run
from benchmarks.work.failover import REDIS
from benchmarks.work.scaling import ONE_ACTOR, TWO_ACTORS

WORKS = {
    "get": "read a session",
    "update": "replace a session as a whole",
    "patch": "set one key of a session",
    "mix": "of five operations four get and one update",
    "web": "a web request: a get, and in one of ten a patch too",
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
    "cut_from_replicas": "the links between the primary and its replicas go silent and heal later",
    "cut_from_majority": "also the links to coordinator or sentinels; callers still reach the primary",
}


class Section(msgspec.Struct, frozen=True):
    """A heading and the lines below it."""

    title: str
    lines: list[str]


def runs_of(results: Results) -> list[Section]:
    """Return how it was measured: machine, runs, and what was left out."""
    left_out = [
        f"{part}: {name}: {reason}"
        for part, run in results.runs.items()
        for name, reason in run.skipped.items()
    ]
    return _with_lines(
        Section("Machine", [*_machines(results.runs), *_versions(results.runs)]),
        Section("Runs", _runs(results)),
        Section("Left out", left_out),
    )


def names_of(results: Results) -> list[Section]:
    """Return what the names in the tables mean."""
    works = dict.fromkeys(each.work for each in (*results.throughput, *results.scaling))
    failures = dict.fromkeys(each.scenario for each in results.failovers)
    return _with_lines(
        Section("Contenders", _named(_contenders(results), _ABOUT)),
        Section("Works", _named(works, WORKS)),
        Section("Failures", _named(failures, _FAILURES)),
    )


def _with_lines(*sections: Section) -> list[Section]:
    return [section for section in sections if section.lines]


def _named(names: Iterable[str], about: Mapping[str, str]) -> list[str]:
    return [f"`{name}`: {about[name]}" for name in names if name in about]


def _contenders(results: Results) -> list[str]:
    """Return the names that stand in the tables, in the catalogue's order."""
    seen = {each.contender for each in (*results.throughput, *results.scaling)}
    seen |= {each.contender for each in (*results.stored, *results.sweeps)}
    seen |= {each.contender for each in results.failovers} | {each.contender for each in results.transfers}
    return [name for name in _ABOUT if name in seen]


def _machines(runs: Mapping[str, Run]) -> list[str]:
    told = _told_by_name({part: run.machine for part, run in runs.items()})
    return [f"{name}: {value}" for name, value in told.items()]


def _versions(runs: Mapping[str, Run]) -> list[str]:
    told = _told_by_name({part: run.versions for part, run in runs.items()})
    used = [f"{name} {value}" for name, value in sorted(told.items())]
    return [f"versions: {', '.join(used)}"] if used else []


def _told_by_name(parts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return what is the same for all parts once, and what is not by part."""
    names = dict.fromkeys(name for values in parts.values() for name in values)
    return {
        name: _told({part: values[name] for part, values in parts.items() if name in values})
        for name in names
    }


def _told(values: Mapping[str, str]) -> str:
    """Return the value, or each with its parts if they differ."""
    parts: dict[str, list[str]] = {}
    for part, value in values.items():
        parts.setdefault(value, []).append(part)
    if len(parts) == 1:
        return next(iter(parts))
    return ", ".join(f"{value} ({' and '.join(those)})" for value, those in parts.items())


def _runs(results: Results) -> list[str]:
    if not results.runs:
        return []
    lines = [f"{part}: {run_told(run, _TURNS[part](results))}" for part, run in results.runs.items()]
    return [
        *lines,
        f"a load above {BUSY} before the run means a busy machine: figures are worse and less steady",
        "a quick run only shows that everything works: its figures may be noise",
        "a reduced run has fewer or shorter rounds than a full one",
    ]


def run_told(run: Run, turns: Iterable[int]) -> str:
    """Return when and how a part was measured; `turns` are the rounds of each figure in it."""
    rounds = rounds_told(turns)
    return ", ".join(
        (
            run.when,
            run.kind,
            *([rounds] if rounds else []),
            f"{run.seconds:g} s a measurement",
            f"{run.took_seconds:.0f} s in all",
            f"load before the run {run.load:.1f}{' (busy)' if run.busy else ''}",
            *([f"commit {run.commit}"] if run.commit else []),
        )
    )


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
