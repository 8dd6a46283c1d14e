"""When a connection that is kept open is dialled again, and what is done in which order."""

import pytest

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.negotiation import Agreement, hello
from greenroom.proofs import NONCE_BYTES, Challenge
from greenroom_cluster.links.redial import (
    BACKOFF_NS_MAX,
    BACKOFF_NS_MIN,
    CONNECT_NS,
    DIAL_NS,
    LASTING_NS,
    Answer,
    Down,
    Ended,
    Failed,
    Greet,
    Open,
    Opened,
    Prove,
    Redial,
    RedialEffect,
    Replaced,
    Reset,
    Stop,
    Tick,
    Up,
)

THEM = b"t" * 16
HELLO = hello("test", wire.ROLE_PEER, b"m" * 16, THEM)
WELCOME = Answer(hello("test", wire.ROLE_PEER, THEM))
WAITS = 1 << 40


def kinds(effects: list[RedialEffect]) -> list[type]:
    return [type(each) for each in effects]


def up(redial: Redial, now_ns: int) -> None:
    """Bring it up, from the pause that ends now."""
    assert kinds(redial.step(now_ns, Tick())) == [Open]
    assert redial.step(now_ns, Opened()) == [Greet(HELLO)]
    assert kinds(redial.step(now_ns, WELCOME)) == [Up]


def pauses(*lasted_ns: int) -> list[int]:
    """Return the pauses after connections that lasted so long."""
    redial, now_ns, found = Redial("them:1", HELLO), 0, []
    for each in lasted_ns:
        up(redial, now_ns)
        now_ns += each
        redial.step(now_ns, Ended("it ended"))
        found.append(redial.next_deadline() - now_ns)
        now_ns = redial.next_deadline()
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


@pytest.mark.parametrize("opened", [False, True])
def test_an_attempt_that_takes_too_long_has_not_lasted(*, opened: bool) -> None:
    """Whether nobody accepts or nobody answers: the pauses after it double like those after a refusal."""
    redial, now_ns, found = Redial("them:1", HELLO), 0, []
    for _ in range(4):
        assert redial.step(now_ns, Tick()) == [Open()]
        if opened:
            redial.step(now_ns, Opened())
        assert redial.next_deadline() == now_ns + DIAL_NS
        now_ns = redial.next_deadline()
        assert redial.step(now_ns, Tick()) == [Reset(), Failed("them:1 did not answer within 2 s")]
        found.append(redial.next_deadline() - now_ns)
        now_ns = redial.next_deadline()
    assert found == [BACKOFF_NS_MIN * 2**count for count in range(4)]


def test_time_passes_for_nothing_before_it_is_due() -> None:
    redial = Redial("them:1", HELLO)
    redial.step(0, Tick())
    assert redial.step(DIAL_NS - 1, Tick()) == []
    redial.step(0, Ended("refused"))
    assert redial.step(BACKOFF_NS_MIN - 1, Tick()) == []
    assert redial.step(BACKOFF_NS_MIN, Tick()) == [Open()]


def test_a_connection_that_is_up_waits_for_nothing() -> None:
    redial = Redial("them:1", HELLO)
    up(redial, 0)
    assert redial.next_deadline() == NEVER_NS
    assert redial.step(WAITS, Tick()) == []


def test_what_has_ended_is_reset_before_anybody_hears_of_it() -> None:
    redial = Redial("them:1", HELLO)
    up(redial, 0)
    assert kinds(redial.step(1, Ended("it ended"))) == [Reset, Down, Failed]
    assert redial.step(1, Ended("told twice")) == []


def test_what_takes_the_place_of_a_link_does_so_after_its_end() -> None:
    """At once, and with as much credit as any new connection has."""
    redial, other = Redial("them:1", HELLO), Replaced(WELCOME.greeting, Agreement(4))  # type: ignore[arg-type]
    up(redial, 0)
    assert redial.step(9, other) == [Reset(), Down(), Up(other.answer, other.agreement)]
    assert redial.next_deadline() == NEVER_NS
    assert kinds(redial.step(9 + LASTING_NS, Ended("it ended"))) == [Reset, Down, Failed]
    assert redial.next_deadline() == 9 + LASTING_NS + BACKOFF_NS_MIN


def test_what_leads_to_another_address_is_dialled_there_from_then_on() -> None:
    redial = Redial("one:1,two:1,three:1", HELLO)
    up(redial, 0)
    redial.step(9, Replaced(WELCOME.greeting, Agreement(4), "two:1"))  # type: ignore[arg-type]
    assert redial.address == "two:1"
    redial.step(9, Ended("it ended"))
    assert redial.address == "two:1"
    redial.step(redial.next_deadline(), Tick())
    redial.step(redial.next_deadline(), Ended("refused"))
    assert redial.address == "three:1"


@pytest.mark.parametrize("phase", range(3))
def test_nothing_takes_the_place_of_a_link_that_is_not_up(phase: int) -> None:
    redial = Redial("them:1", HELLO)
    for event in (Tick(), Opened())[:phase]:
        redial.step(0, event)
    due_ns = redial.next_deadline()
    assert redial.step(0, Replaced(WELCOME.greeting, Agreement(4))) == []  # type: ignore[arg-type]
    assert redial.next_deadline() == due_ns


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
    redial = Redial("them:1", HELLO)
    redial.step(0, Tick())
    redial.step(0, Opened())
    effects = redial.step(0, Answer(answer))
    if code is None:
        assert kinds(effects) == [Up]
    else:
        assert kinds(effects) == [Reset, Failed]
        assert isinstance(effects[-1], Failed)
        assert effects[-1].code == code


@pytest.mark.parametrize("phase", range(4))
def test_a_link_that_was_stopped_is_silent(phase: int) -> None:
    """It is reset if there is anything to reset, and nobody hears of its end."""
    redial = Redial("them:1", HELLO)
    for event in (Tick(), Opened(), WELCOME)[:phase]:
        redial.step(0, event)
    assert redial.step(1, Stop()) == ([Reset()] if phase else [])
    assert redial.next_deadline() == NEVER_NS
    for event in (Tick(), Opened(), WELCOME, Ended("late"), Stop()):
        assert redial.step(WAITS, event) == []


def test_proof_goes_before_the_use_of_a_connection() -> None:
    ours, theirs = (Challenge(b"s" * 43, bytes([each]) * NONCE_BYTES, "127.0.0.1:1") for each in (1, 2))
    redial = Redial("them:1", HELLO)
    redial.step(0, Tick())
    asked = ours.asking(HELLO)
    assert redial.step(0, Opened(ours)) == [Greet(asked)]
    answer = theirs.answering(asked, hello("test", wire.ROLE_PEER, THEM))
    prove, up_ = redial.step(0, Answer(answer))
    assert isinstance(prove, Prove)
    assert theirs.accepts(asked, answer, prove.proof)
    assert isinstance(up_, Up)


def test_who_proves_nothing_is_reset_and_dialled_again() -> None:
    redial = Redial("them:1", HELLO)
    redial.step(0, Tick())
    redial.step(0, Opened(Challenge(b"s" * 43, bytes(NONCE_BYTES), "127.0.0.1:1")))
    reset, failed = redial.step(0, WELCOME)
    assert isinstance(reset, Reset)
    assert isinstance(failed, Failed)
    assert failed.code == "not-proven"
    assert redial.next_deadline() == BACKOFF_NS_MIN


def test_each_of_several_addresses_is_tried_before_a_pause() -> None:
    redial, tried, now_ns = Redial("one:1,two:1,three:1", HELLO), [], 0
    for _ in range(6):
        assert redial.step(now_ns, Tick()) == [Open(CONNECT_NS)], "a lost host accepts nothing"
        tried.append((redial.address, now_ns))
        redial.step(now_ns, Ended("nobody is there"))
        now_ns = redial.next_deadline()
    names = ["one:1", "two:1", "three:1"]
    assert tried == [
        *((name, 0) for name in names),
        *((name, BACKOFF_NS_MIN) for name in names),
    ]


def test_a_connection_that_was_up_is_dialled_at_the_same_address_first() -> None:
    redial = Redial("one:1,two:1", HELLO)
    redial.step(0, Tick())
    redial.step(0, Ended("nobody is there"))
    up(redial, redial.next_deadline())
    assert redial.address == "two:1"
    redial.step(LASTING_NS * 2, Ended("it ended"))
    assert redial.address == "two:1"
    redial.step(redial.next_deadline(), Tick())
    redial.step(LASTING_NS * 3, Ended("it is gone"))
    assert redial.address == "one:1"


def test_a_connection_of_no_use_is_dialled_elsewhere_next() -> None:
    """Whoever came back to the coordinator of another cluster never left it."""
    redial = Redial("one:1,two:1", HELLO)
    up(redial, 0)
    redial.step(LASTING_NS * 2, Ended("finished", shuns=True))
    assert redial.address == "two:1"
    up(redial, redial.next_deadline())
    redial.step(LASTING_NS * 5, Ended("broken"))
    assert redial.address == "two:1"
