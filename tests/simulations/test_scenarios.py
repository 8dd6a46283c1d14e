"""Named stories keep their bounds, and are drawn."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from greenroom.errors import UsageError
from simulations.cli.main import main
from simulations.cluster.recording import gaps
from simulations.stories import scenarios


@pytest.mark.parametrize("name", ["killed_actor", "paused_primary", "coordinator_restored", "slow_peer"])
def test_a_story_breaks_no_rule_and_keeps_its_bound(name: str) -> None:
    outcome, _ = scenarios.run_scenario(name)
    assert outcome.violations == []
    assert outcome.longest_unavailable_seconds <= outcome.bound_seconds


def test_links_are_renewed_and_no_shard_changes_its_configuration() -> None:
    """No lease is lost, though all renew theirs at once, and some faster than there are beacons."""
    outcome, world = scenarios.run_scenario("renewed_links")
    assert (outcome.violations, outcome.answered) == ([], outcome.operations)
    assert outcome.longest_unavailable_seconds <= outcome.bound_seconds
    assert world.network.happened["link replaced"] > 50
    began = min(strike.at for strike in world.recording.strikes)
    assert [each for each in world.recording.configurations if each.at >= began] == []


def test_every_story_can_be_read() -> None:
    for name in scenarios.names():
        story = scenarios.load(name)
        assert story.title
        assert story.plan.faults


def test_an_unknown_story_says_which_there_are() -> None:
    with pytest.raises(UsageError, match="paused_primary"):
        scenarios.load("no_such_story")


def test_a_story_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenario", "killed_actor", "--svg", str(tmp_path)]) == 0
    picture = ET.parse(tmp_path / "killed_actor.svg").getroot()
    words = "".join(picture.itertext())
    assert "shard 0" in words
    assert "kill actor" in words
    assert "killed_actor" in capsys.readouterr().out


def test_gaps_are_found_at_the_ends_too() -> None:
    assert gaps([2.0, 2.1, 5.0], 0.0, 6.0, 0.5) == [(0.0, 2.0), (2.1, 5.0), (5.0, 6.0)]
