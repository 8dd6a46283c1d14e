"""The pictures of a write and a failover in the docs are what the core says today."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from simulations.cli.main import main
from simulations.stories.exchanges import EXCHANGES, Event, Exchange, Message, Moment

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
HINT = "draw them anew: uv run python -m simulations sequence --svg docs/images"


@pytest.fixture(scope="module")
def told() -> dict[str, Exchange]:
    return {name: tell() for name, tell in EXCHANGES.items()}


def steps(exchange: Exchange) -> list[tuple[str, str, str]]:
    return [
        (each.source, each.destination, each.words.partition(",")[0])
        for each in exchange.events
        if isinstance(each, Message) and not each.lost
    ]


def place(exchange: Exchange, wanted: tuple[str, str, str]) -> int:
    return steps(exchange).index(wanted)


def test_the_pictures_in_the_docs_are_those_of_the_command(tmp_path: Path) -> None:
    assert main(["sequence", "--svg", str(tmp_path)]) == 0
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in IMAGES.glob("sequence_*.svg")}
    assert kept == drawn, HINT


def test_a_write_is_logged_by_the_backup_before_it_is_answered(told: dict[str, Exchange]) -> None:
    logged = place(told["write"], ("backup", "primary", "PrepareOk"))
    assert logged < place(told["write"], ("primary", "store", "Written"))


def test_the_backup_answers_the_repeat_after_it_took_over(told: dict[str, Exchange]) -> None:
    """The write is in the picture once as a record, and twice as a request of one number."""
    failover = told["failover"]
    requests = [each for each in failover.events if isinstance(each, Message) and "Update" in each.words]
    assert [each.destination for each in requests] == ["primary", "backup"]
    assert len({each.words for each in requests}) == 1
    assert [each[2] for each in steps(failover)].count("Prepare") == 1
    took_over = [each for each in failover.events if isinstance(each, Moment) and "takeover" in each.words]
    (answer,) = [each for each in failover.events if isinstance(each, Message) and "Written" in each.words]
    assert took_over[0].at_ms < answer.at_ms


def test_the_killed_primary_hears_and_says_nothing_more(told: dict[str, Exchange]) -> None:
    def concerns(event: Event) -> bool:
        return isinstance(event, Message) and "primary" in (event.source, event.destination)

    events = told["failover"].events
    (killed,) = [each for each in events if isinstance(each, Moment) and each.ends]
    after = events[events.index(killed) + 1 :]
    assert after
    assert not any(concerns(each) for each in after)
    assert any(isinstance(each, Message) and each.lost for each in events)


def test_times_never_go_back(told: dict[str, Exchange]) -> None:
    for exchange in told.values():
        times = [round(each.at_ms, 6) for each in exchange.events]
        assert times == sorted(times)
        assert times[0] == 0


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_picture_tells_its_story_in_words_too(name: str, told: dict[str, Exchange]) -> None:
    picture = ET.parse(IMAGES / f"sequence_{name}.svg").getroot()
    description = picture.find("{http://www.w3.org/2000/svg}desc")
    assert description is not None
    assert description.text is not None
    for event in told[name].events:
        assert event.words in description.text


def test_an_unknown_sequence_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sequence", "no_such"]) == 2
    assert "write, failover" in capsys.readouterr().err
