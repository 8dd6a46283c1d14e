"""Plots say what people compare: every contender by its name, in a colour of its own, with what it lost."""

import re
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from benchmarks.appearance import DARK, GRID, GROUND, INK, LOOKS, SCENARIOS, with_dark_colours
from benchmarks.plots import failures_of
from benchmarks.report import RESULTS_FILE
from benchmarks.results import Results
from tests.benchmarks.builders import failover

DOCUMENTS = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
DRAWN = sorted(DOCUMENTS.glob("*.svg"))
GRAPHICS_CONTRAST, TEXT_CONTRAST = 3.0, 4.5


@pytest.fixture(scope="module")
def published() -> Results:
    return msgspec.json.decode((DOCUMENTS / RESULTS_FILE).read_bytes(), type=Results)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def words_of(path: Path) -> set[str]:
    found = re.findall(r"<text\b[^>]*>(?:<tspan[^>]*>)?([^<]+)", path.read_text())
    return {each.strip() for each in found}


@pytest.mark.parametrize("name", LOOKS)
def test_a_colour_stands_out_on_a_light_and_on_a_dark_ground(name: str) -> None:
    assert contrast(LOOKS[name].colour, GROUND) >= GRAPHICS_CONTRAST
    assert contrast(LOOKS[name].colour, DARK[GROUND]) >= GRAPHICS_CONTRAST


def test_words_can_be_read_on_a_light_and_on_a_dark_ground() -> None:
    assert contrast(INK, GROUND) >= TEXT_CONTRAST
    assert contrast(DARK[INK], DARK[GROUND]) >= TEXT_CONTRAST


def test_no_two_contenders_look_alike(published: Results) -> None:
    assert len({each.colour for each in LOOKS.values()}) == len(LOOKS)
    assert len({each.name for each in LOOKS.values()}) == len(LOOKS)
    lines = {each.contender for each in (*published.throughput, *published.stored)}
    for one, other in combinations(sorted(lines), 2):
        assert LOOKS[one].marker != LOOKS[other].marker, f"{one} and {other}"


def test_every_contender_has_a_look_and_every_scenario_a_title(published: Results) -> None:
    everything = (*published.throughput, *published.stored, *published.failovers)
    assert {each.contender for each in everything} <= set(LOOKS)
    assert {each.scenario for each in published.failovers} == set(SCENARIOS)


def test_losses_are_added_up_and_waits_are_not() -> None:
    rounds = ((1.0, 12), (5.0, 0), (2.0, 1030))
    readings = [failover("redis_sentinel", recovered=wait, lost=lost) for wait, lost in rounds]
    (failure,) = failures_of(Results(failovers=readings))
    assert failure.wait_seconds == 2.0
    assert failure.loss == "1,042"


def test_the_published_plot_of_failures_shows_waits_beside_losses(published: Results) -> None:
    words = words_of(DOCUMENTS / "failover.svg")
    assert {
        "longest wait in seconds, median of the runs",
        "acknowledged writes lost, sum of the runs",
    } <= words
    for failure in failures_of(published):
        wanted = {LOOKS[failure.contender].name, SCENARIOS[failure.scenario], failure.loss}
        assert {*wanted, f"{failure.wait_seconds:.2f} s"} <= words


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_a_published_plot_has_no_contender_by_a_bare_name(path: Path) -> None:
    words = words_of(path)
    assert words & {each.name for each in LOOKS.values()}
    assert not words & (set(LOOKS) - {each.name for each in LOOKS.values()})
    assert DARK[GROUND] in path.read_text(), "it is dark where the reader's system is"


def test_dark_colours_change_ink_grid_and_ground_alone() -> None:
    picture = with_dark_colours(f'<svg width="1"><path style="fill: {INK}"/></svg>')
    assert picture.count("<style>") == 1
    assert picture.index("<style>") < picture.index("<path")
    for light in (INK, GRID, GROUND):
        assert f'[style*="fill: {light}"]{{fill:{DARK[light]}!important}}' in picture
