"""The oracles are believed because they find what is known to be wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom_cluster.shard.roles.primary import Primary
from simulations.mutants.hunt import find
from simulations.mutants.patching import MUTANTS, Patches, planted
from simulations.runs.batch import run_plan, run_seed

FIRST_SEEDS = {
    "backs the primary after its takeover proposal": 130,
    "presumes the death of a replaced actor": 300,
    "takes a restarted actor for its predecessor": 60,
}
"""Where to begin to look, to save time: shortly before the seed that finds it."""

STORIES = sorted(name for name, mutant in MUTANTS.items() if mutant.plan is not None)
FLAGGED = sorted(name for name, mutant in MUTANTS.items() if mutant.flagged)


@pytest.mark.parametrize("name", FLAGGED)
def test_a_rule_that_closed_a_counterexample_is_missed_when_broken(name: str) -> None:
    finding = find(name, FIRST_SEEDS.get(name, 0))
    assert finding.seeds, f"{name} was not found within {finding.budget} seeds"


@pytest.mark.parametrize("name", STORIES)
def test_a_story_breaks_a_rule_only_by_its_mutant(name: str) -> None:
    plan = MUTANTS[name].plan
    assert plan is not None
    for seed in range(2):
        assert run_plan(replace(plan, seed=seed))[0].violations == []
    finding = find(name, FIRST_SEEDS.get(name, 0))
    assert finding.seeds, f"{name} was not found within {finding.budget} seeds"


def test_a_mutant_is_taken_out_again() -> None:
    original = Primary.leased
    with planted("answers reads without a lease"):
        assert Primary.leased is not original
    assert Primary.leased is original
    assert run_seed(0).violations == []


def test_every_mutant_says_what_is_wrong() -> None:
    assert len(MUTANTS) >= 40
    assert all(mutant.mistake.endswith(".") for mutant in MUTANTS.values())


def test_a_mutant_breaks_only_the_product() -> None:
    """What stands in the simulated world alone proves nothing about the code that users run."""
    for name, mutant in MUTANTS.items():
        patches = Recorded()
        try:
            mutant.plant(patches)
        finally:
            patches.undo()
        assert patches.broken, name
        assert not [each for each in patches.broken if each.startswith("simulations.")], name


class Recorded(Patches):
    """Patches that note whose attributes they replace."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        self.broken.append(getattr(owner, "__module__", None) or owner.__name__)
        super().set(owner, name, value)


def test_a_mutant_has_the_defaults_of_what_it_replaces() -> None:
    class Broken:
        def receive(self, crowded: Any = len) -> Any:
            return crowded("")

    patches = Patches()
    with pytest.raises(TypeError, match=r"Broken\.receive has another default of crowded"):
        patches.set(Broken, "receive", lambda self, crowded=None: crowded(""))
    patches.set(Broken, "receive", lambda self, crowded=len: crowded("x"))
    patches.undo()
    assert Broken().receive() == 0


def test_the_page_names_every_mutant_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/simulations.md").read_text()
    table, rules = page[page.index("## Mutants") : page.index("## What they found")].split("### Rules of")
    rows = re.findall(r"^\| (⚑ )?(.+?) \| [\w-]+ \| \d+", table, re.MULTILINE)
    assert {name: bool(flag) for flag, name in rows} == {name: each.flagged for name, each in MUTANTS.items()}
    assert f"All {len(MUTANTS)} take" in table
    assert set(re.findall(r"\*([^*]+)\*", rules)) <= set(MUTANTS)
