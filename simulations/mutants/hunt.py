"""The command `mutants`: plants each known mistake and counts how many seeds it takes to find it."""

import json
import re
import sys
import time
from functools import partial

import msgspec

from simulations.mutants import (
    around,
    claims,
    coordination,
    core,
    directories,
    durable,
    etcd,
    heirs,
    marks,
    memory,
    namespaces,
    near,
    near_hands,
    poison,
    proofs,
    recovering,
    requests,
    syncing,
    tokens,
    watching,
    zones,
)
from simulations.mutants.patching import MUTANTS, Mutant, planted
from simulations.runs.batch import run_plan, run_seed, worker_pool
from simulations.runs.world import Result

# Importing them registers their mutants.
__all__ = [
    "Finding",
    "around",
    "claims",
    "coordination",
    "core",
    "directories",
    "durable",
    "etcd",
    "find",
    "find_all",
    "heirs",
    "marks",
    "memory",
    "namespaces",
    "near",
    "near_hands",
    "poison",
    "proofs",
    "recovering",
    "requests",
    "syncing",
    "table",
    "tokens",
    "watching",
    "zones",
]


# A mutant that reaches for what is not there breaks at once, and shows nothing.
_BROKEN = re.compile(r"NameError|AttributeError: (?!'NoneType')")


class Finding(msgspec.Struct, frozen=True):
    """How a mutant was found: after how many seeds, in how many seconds of processor time, by which rule.

    `seeds` is 0 if it was not found within its budget.
    """

    name: str
    mistake: str
    flagged: bool
    budget: int
    seeds: int
    seconds: float
    rule: str


def find(name: str, first_seed: int = 0) -> Finding:
    """Run seeds with that mutant planted until a rule breaks, at most its budget."""
    mutant = MUTANTS[name]
    began = time.process_time()
    with planted(name):
        for count in range(mutant.budget):
            result = _run(mutant, first_seed + count)
            if result.violations:
                seconds = time.process_time() - began
                first = result.violations[0]
                if _BROKEN.search(first.detail):
                    raise RuntimeError(f"the mutant {name!r} does not fit the code any more: {first}")
                return Finding(
                    name, mutant.mistake, mutant.flagged, mutant.budget, count + 1, seconds, first.rule
                )
    seconds = time.process_time() - began
    return Finding(name, mutant.mistake, mutant.flagged, mutant.budget, 0, seconds, "")


def _run(mutant: Mutant, seed: int) -> Result:
    if mutant.plan is None:
        return run_seed(seed)
    return run_plan(msgspec.structs.replace(mutant.plan, seed=seed))[0]


def find_all(names: list[str], jobs: int, first_seed: int = 0) -> list[Finding]:
    """Hunt for these mutants, the flagged ones first; progress on stderr."""
    names = sorted(names, key=lambda name: not MUTANTS[name].flagged)
    findings = []
    with worker_pool(jobs) as pool:
        for finding in pool(partial(find, first_seed=first_seed), names):
            findings.append(finding)
            outcome = f"seed {finding.seeds}: {finding.rule}" if finding.seeds else "NOT FOUND"
            print(f"{len(findings)}/{len(names)} {finding.name}: {outcome}", file=sys.stderr, flush=True)
    return findings


def table(findings: list[Finding]) -> str:
    """Return the findings as a table in Markdown."""
    lines = [
        "| mutant | found by | seeds needed | of at most | processor seconds |",
        "|---|---|---:|---:|---:|",
    ]
    for each in findings:
        flag = "⚑ " if each.flagged else ""
        seeds = str(each.seeds) if each.seeds else "not found"
        if MUTANTS[each.name].plan is not None:
            seeds += " (story)"
        lines.append(
            f"| {flag}{each.name} | {each.rule or '-'} | {seeds} | {each.budget} | {each.seconds:.1f} |"
        )
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """Return the findings as one JSON object."""
    found = sum(1 for each in findings if each.seeds)
    body = {"mutants": len(findings), "found": found, "findings": msgspec.to_builtins(findings)}
    return json.dumps(body, ensure_ascii=False)
