"""For how long a coordinator waits for the maps of nodes that it asked."""

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.inquiry import ANSWER_SECONDS, Inquiry

MAP = first_map("test", 1, 2, b"c" * 16)
END_NS = round(ANSWER_SECONDS * 1e9)


def begun(*addresses: str) -> Inquiry:
    inquiry = Inquiry()
    inquiry.begin(0, addresses)
    return inquiry


def test_there_is_nothing_to_judge_before_anybody_was_asked() -> None:
    inquiry = Inquiry()
    assert inquiry.conclude(END_NS) is None
    assert inquiry.next_deadline() == NEVER_NS


def test_all_answers_are_judged_together_and_once() -> None:
    inquiry = begun("a:1", "b:1")
    inquiry.answered("a:1", MAP)
    assert inquiry.conclude(1) is None
    inquiry.answered("b:1", None)
    assert inquiry.conclude(1) == [MAP]
    assert inquiry.conclude(2) is None
    assert inquiry.next_deadline() == NEVER_NS


def test_a_silent_node_holds_the_verdict_up_for_a_moment_only() -> None:
    inquiry = begun("a:1", "b:1")
    inquiry.answered("a:1", MAP)
    assert inquiry.next_deadline() == END_NS
    assert inquiry.conclude(END_NS - 1) is None
    assert inquiry.conclude(END_NS) == [MAP]


def test_that_nobody_answers_is_an_answer() -> None:
    assert begun("a:1").conclude(END_NS) == []


def test_a_late_answer_is_judged_alone() -> None:
    inquiry = begun("a:1")
    assert inquiry.conclude(END_NS) == []
    inquiry.answered("a:1", MAP)
    assert inquiry.conclude(END_NS + 1) == [MAP]


def test_a_question_that_is_asked_again_does_not_hold_up_the_verdict() -> None:
    inquiry = begun("a:1", "b:1")
    inquiry.answered("a:1", MAP)
    inquiry.begin(END_NS - 1, ("a:1", "b:1"))
    assert inquiry.conclude(END_NS) == [MAP]
    assert inquiry.next_deadline() == NEVER_NS
