"""The ladder of a log, and where two logs part."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.shard.state.ladder import RUNGS_MAX, Ladder, common_end
from tests.cluster.shard.probe import record


def ladder(*epochs: int) -> tuple[tuple[int, int], ...]:
    """Return the rungs of a log whose records have these epochs, from number 1 on."""
    found = Ladder()
    found.extend(record(number, epoch=epoch) for number, epoch in enumerate(epochs, 1))
    return found.rungs(len(epochs))


def test_a_rung_ends_where_the_next_epoch_begins() -> None:
    assert ladder(1, 1, 3, 3, 4) == ((1, 2), (3, 4), (4, 5))
    assert ladder() == ()


def test_an_epoch_in_which_nothing_was_logged_has_no_rung() -> None:
    found = Ladder((1, 10))
    found.begin(2, 11)
    found.begin(3, 11)
    assert found.rungs(10) == ((1, 10),)
    assert found.rungs(12) == ((1, 10), (3, 12))


def test_a_snapshot_of_unknown_epoch_has_no_rung() -> None:
    found = Ladder((0, 10))
    found.begin(2, 11)
    assert found.rungs(12) == ((2, 12),)


def test_only_the_newest_rungs_are_kept() -> None:
    rungs = ladder(*range(1, RUNGS_MAX + 9))
    assert len(rungs) == RUNGS_MAX
    assert rungs[-1] == (RUNGS_MAX + 8, RUNGS_MAX + 8)


def test_what_was_cut_off_has_no_rung() -> None:
    found = Ladder((1, 10))
    found.extend([record(11, epoch=2), record(12, epoch=3)])
    found.cut(11)
    assert found.rungs(11) == ((1, 10), (2, 11))


EPOCHS = st.lists(st.integers(1, 3))


@given(EPOCHS, EPOCHS, EPOCHS)
def test_logs_are_the_same_up_to_the_common_end(
    shared: list[int], ours: list[int], theirs: list[int]
) -> None:
    """Each epoch has one primary: of two tails after a common beginning, no epoch is in both."""
    common = sorted(shared)
    newest = common[-1] if common else 0
    mine = [newest + 2 * each for each in sorted(ours)]
    other = [newest + 2 * each + 1 for each in sorted(theirs)]
    end = common_end(ladder(*common, *mine), ladder(*common, *other))
    assert end == len(common)
