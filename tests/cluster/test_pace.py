"""How often an observer may look at an actor."""

from greenroom_cluster.pace import _HOLDERS_MAX, BURST, EVERY_NS, Pace

ANN, BEN = "greenroom://shop/observer/ann", "greenroom://shop/observer/ben"


def test_a_holder_looks_once_a_second_and_a_few_times_at_once() -> None:
    pace = Pace()
    assert [pace.admits(ANN, 5) for _ in range(BURST + 3)] == [True] * BURST + [False] * 3
    assert pace.admits(BEN, 5), "each has looks of its own"
    assert not pace.admits(ANN, 5 + EVERY_NS - 1)
    assert pace.admits(ANN, 5 + EVERY_NS)
    assert not pace.admits(ANN, 5 + EVERY_NS)
    # Without a pause it is one a second, however long that goes on.
    ten_a_second = [pace.admits(ANN, 5 + EVERY_NS + tenth * EVERY_NS // 10) for tenth in range(1, 1001)]
    assert sum(ten_a_second) == 100
    assert [pace.admits(ANN, 1000 * EVERY_NS) for _ in range(BURST + 1)] == [True] * BURST + [False]


def test_those_who_have_paused_are_forgotten() -> None:
    pace = Pace()
    for second in range(5):
        for number in range(_HOLDERS_MAX):
            assert pace.admits(f"{second} {number}", second * 2 * EVERY_NS)
    assert len(pace._used_up_ns) <= _HOLDERS_MAX
