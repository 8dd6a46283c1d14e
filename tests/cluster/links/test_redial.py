"""When a connection that is kept open is dialled again."""

import pytest

from greenroom import wire
from greenroom.negotiation import hello
from greenroom_cluster.links.handshake import Accepted, Refusal
from greenroom_cluster.links.redial import BACKOFF_NS_MAX, BACKOFF_NS_MIN, DIAL_NS, LASTING_NS, Redial

THEM = b"t" * 16
HELLO = hello("test", wire.ROLE_PEER, b"m" * 16, THEM)


def pauses(*lasted_ns: int) -> list[int]:
    """The pauses after connections that lasted so long."""
    redial, now_ns, found = Redial(HELLO), 0, []
    for each in lasted_ns:
        assert redial.dial(now_ns) == now_ns + DIAL_NS
        now_ns += each
        found.append(redial.ended(now_ns) - now_ns)
        now_ns += found[-1]
    return found


@pytest.mark.parametrize(
    ("lasted_ns", "expected"),
    [
        ([0], [BACKOFF_NS_MIN]),
        ([0, 0, LASTING_NS], [BACKOFF_NS_MIN, 2 * BACKOFF_NS_MIN, 4 * BACKOFF_NS_MIN]),
        ([0, 0, LASTING_NS + 1, 0], [BACKOFF_NS_MIN, 2 * BACKOFF_NS_MIN, BACKOFF_NS_MIN, 2 * BACKOFF_NS_MIN]),
    ],
)
def test_pauses_double_until_a_connection_lasts(lasted_ns: list[int], expected: list[int]) -> None:
    assert pauses(*lasted_ns) == expected


def test_pauses_have_a_bound() -> None:
    assert pauses(*[0] * 30)[-1] == BACKOFF_NS_MAX


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (hello("test", wire.ROLE_PEER, THEM), None),
        (hello("test", wire.ROLE_PEER, b"o" * 16), "wrong-target"),
        (wire.Goodbye("wrong-cluster", "another cluster is served here"), "wrong-cluster"),
    ],
)
def test_an_answer_is_taken_from_the_one_who_was_dialled(
    answer: wire.Hello | wire.Goodbye, code: str | None
) -> None:
    judged = Redial(HELLO).answered(answer)
    assert (judged.code if isinstance(judged, Refusal) else None) == code
    assert code is not None or isinstance(judged, Accepted)
