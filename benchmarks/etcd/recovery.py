"""The demo with its map in a file and in etcd, in turns: how soon sessions answer after kills."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from greenroom_cluster.demo.verdict import DemoResult

FILE, ETCD = "file", "etcd"
_RUN_SECONDS_MAX = 180.0


class DemoFailedError(Exception):
    """A demo could not run, lost something or measured too little; says what it wrote."""


class Ratio(NamedTuple):
    """One figure of both sides over all pairs of runs; `ratio` is the median of the pairs' ratios."""

    figure: str
    file: list[float]
    etcd: list[float]

    @property
    def ratio(self) -> float:
        """Return etcd to file; above 1, etcd is slower."""
        return statistics.median(etcd / file for file, etcd in zip(self.file, self.etcd, strict=True))


def demo(store: str, seed: int) -> DemoResult:
    """Run one demo. Raises DemoFailedError."""
    command = [sys.executable, "-m", "greenroom_cluster", "demo", "--json", "--seed", str(seed)]
    command += ["--store", store] if store else []
    try:
        run = subprocess.run(command, capture_output=True, timeout=_RUN_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise DemoFailedError(f"a demo took more than {_RUN_SECONDS_MAX:g} s") from error
    if run.returncode:
        raise DemoFailedError(f"a demo ended with {run.returncode}: {run.stderr.decode()[-2000:]}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=DemoResult)


def in_pairs(
    store: str, runs: int, minutes: float, say: Callable[[str], None]
) -> list[tuple[DemoResult, DemoResult]]:
    """Run both sides `runs` times, the other one first in every pair; return (file, etcd) of each pair.

    No pair is begun after so many minutes, and one of which a run fails is told and left out. Raises
    DemoFailedError if none is left.
    """
    pairs = []
    began = time.monotonic()
    for turn in range(runs):
        if time.monotonic() > began + minutes * 60:
            say(f"{minutes:g} minutes are over: no further pair is begun (--minutes)")
            break
        found = {}
        try:
            for side in (FILE, ETCD) if turn % 2 == 0 else (ETCD, FILE):
                found[side] = demo(store if side == ETCD else "", seed=turn + 1)
                actor, node = found[side].recover_actor_seconds, found[side].recover_node_seconds
                say(f"run {turn + 1} of {runs}, {side}: actor {actor:.3f} s, node {node:.3f} s")
        except DemoFailedError as error:
            say(f"run {turn + 1} of {runs} is left out: {error}")
            continue
        pairs.append((found[FILE], found[ETCD]))
    if not pairs:
        raise DemoFailedError("no pair of runs has succeeded")
    return pairs


def ratios(pairs: list[tuple[DemoResult, DemoResult]]) -> list[Ratio]:
    """Return what is compared."""
    figures = {
        "an actor is killed": "recover_actor_seconds",
        "a node is killed": "recover_node_seconds",
        "longest request": "longest_request_seconds",
    }
    return [
        Ratio(
            words,
            [getattr(file, figure) for file, _ in pairs],
            [getattr(etcd, figure) for _, etcd in pairs],
        )
        for words, figure in figures.items()
    ]


def table(pairs: list[tuple[DemoResult, DemoResult]]) -> str:
    """Return a table in Markdown: medians, with the worst run in brackets."""
    lines = [
        f"| demo, {len(pairs)} pairs | map in a file | map in etcd | etcd to file |",
        "|---|---:|---:|---:|",
    ]
    for each in ratios(pairs):
        cells = [f"{statistics.median(side):.3f} s ({max(side):.3f} s)" for side in (each.file, each.etcd)]
        lines.append(f"| {each.figure} | {cells[0]} | {cells[1]} | {each.ratio:.2f} |")
    leaders = [etcd.new_leader_seconds or 0.0 for _, etcd in pairs]
    told = f"{statistics.median(leaders):.2f} s ({max(leaders):.2f} s)"
    lines.append(f"| the coordinator that leads is killed: another one leads | | {told} | |")
    errors = [sum(each.user_errors + each.lost_writes for each in side) for side in zip(*pairs, strict=True)]
    lines.append(f"| errors seen, writes lost, in all runs | {errors[0]} | {errors[1]} | |")
    return "\n".join(lines)
