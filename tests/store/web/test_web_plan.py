"""What is planned for what a handler left, as a table: no store, no loop, no clock."""

from collections.abc import Callable
from typing import Any

import pytest

from greenroom import UsageError
from greenroom.codec import decode_data, encode_data
from greenroom.sessions import StoredSession
from greenroom.web.difference import Difference
from greenroom.web.lifetimes import USUAL, Terms, lifetimes_of, parted
from greenroom.web.plan import (
    AnyStep,
    Cookie,
    Create,
    Drop,
    End,
    EndEverywhere,
    Extend,
    Nothing,
    Patch,
    Rotate,
    plan,
)
from greenroom.web.state import VisitState

SECOND_US = 1_000_000
LIFETIMES = lifetimes_of(100, None)
CART = {"cart": {"mug": 1}}
RECORD = StoredSession("an-id", 1, "alice", 0, 100 * SECOND_US, None, "", encode_data(CART))


def anonymous(**data: Any) -> VisitState:
    return VisitState(dict(data))


def stored(record: StoredSession = RECORD, **more: Any) -> VisitState:
    """A request that has read this session, and in whose handler `more` was set."""
    state = VisitState(record.decoded())
    state.stored, state.snapshot, state.user_id = record, record.data, record.user_id
    state.has_cookie = True
    state.session.update(more)
    return state


def planned(state: VisitState, at_seconds: float = 0) -> AnyStep:
    return plan(state, encode_data(state.contents()), int(at_seconds * SECOND_US), LIFETIMES)


def marked(state: VisitState, *acts: Callable[[VisitState], None]) -> VisitState:
    for act in acts:
        act(state)
    return state


def login(user_id: str = "bob", **data: Any) -> Callable[[VisitState], None]:
    return lambda state: state.note_login(user_id, data)


def logout(state: VisitState) -> None:
    state.note_logout()


def rotate(state: VisitState) -> None:
    state.rotating = True


def lose(state: VisitState) -> None:
    state.lost = True


def start(state: VisitState) -> None:
    state.started = True


def write(state: VisitState) -> None:
    state.session["flash"] = "bye"


def everywhere(state: VisitState) -> None:
    state.everywhere = ("alice", True)


FLASH = Difference({("flash",): "bye"}, ())

TABLE: dict[str, tuple[VisitState, float, type[Any], dict[str, Any]]] = {
    "anonymous, untouched": (anonymous(), 0, Nothing, {}),
    "anonymous, with data": (anonymous(a=1), 0, Create, {"user_id": None, "data": encode_data({"a": 1})}),
    "anonymous, login": (marked(anonymous(a=1), login()), 0, Create, {"user_id": "bob"}),
    "anonymous, login without data": (marked(anonymous(), login()), 0, Create, {"user_id": "bob"}),
    "anonymous, logout": (marked(anonymous(), logout), 0, End, {"stored": None}),
    "stored, untouched": (stored(), 0, Nothing, {}),
    "stored, keys in another order": (
        stored(StoredSession("an-id", 1, None, 0, 100 * SECOND_US, None, "", encode_data({"a": 1, "b": 2}))),
        0,
        Nothing,
        {},
    ),
    "stored, just enough time": (stored(), 16, Nothing, {}),
    "stored, used late": (stored(), 17, Extend, {"expires_us": 117 * SECOND_US}),
    "stored, with data": (marked(stored(), write), 0, Patch, {"changes": FLASH, "expires_us": None}),
    "stored, with data, late": (marked(stored(), write), 17, Patch, {"expires_us": 117 * SECOND_US}),
    "stored, emptied key by key": (
        marked(stored(), lambda state: state.session.clear()),
        0,
        Patch,
        {"changes": Difference({}, (("cart",),))},
    ),
    "stored, new id": (marked(stored(), rotate), 0, Rotate, {"user_id": "alice", "changes": ({}, ())}),
    "stored, login": (marked(stored(), login("alice")), 0, Rotate, {"user_id": "alice", "changes": ({}, ())}),
    "stored, login of another": (
        marked(stored(), login(since=1)),
        0,
        End,
        {"stored": RECORD},
    ),
    "stored, login of another and of the first again": (
        marked(stored(), login(since=1), login("alice")),
        0,
        Rotate,
        {"user_id": "alice", "changes": Difference({}, (("cart",),))},
    ),
    "stored, logout": (marked(stored(), logout), 0, End, {"stored": RECORD}),
    "stored, logout and data": (marked(stored(), logout, write), 0, End, {"stored": RECORD}),
    "stored, logout and login": (marked(stored(), logout, login()), 0, End, {"stored": RECORD}),
    "stored, others out": (
        marked(stored(), everywhere),
        0,
        EndEverywhere,
        {"user_id": "alice", "keep": "an-id"},
    ),
    "stored, others out before a logout": (marked(stored(), everywhere, logout), 0, EndEverywhere, {}),
    "stored, others out before a new id": (marked(stored(), rotate, everywhere), 0, EndEverywhere, {}),
    "lost, untouched and late": (marked(stored(), lose), 61, Nothing, {}),
    "lost, with data": (marked(stored(), lose, write), 0, Drop, {}),
    "lost, new id": (marked(stored(), rotate, lose), 0, Drop, {}),
    "lost, login": (
        marked(stored(), login("alice", since=1), lose),
        0,
        Create,
        {"user_id": "alice", "data": encode_data({"since": 1})},
    ),
    "lost, login of another": (marked(stored(), login(since=1), lose), 0, End, {"stored": RECORD}),
    "lost, logout": (marked(stored(), lose, logout), 0, End, {"stored": RECORD}),
    "started, with data": (marked(stored(), start, write), 0, Patch, {"changes": FLASH}),
    "started, logout": (marked(stored(), start, logout), 0, End, {}),
}


@pytest.mark.parametrize("name", TABLE)
def test_plan(name: str) -> None:
    state, at_seconds, kind, fields = TABLE[name]
    step = planned(state, at_seconds)
    assert type(step) is kind
    for field, value in fields.items():
        assert getattr(step, field) == value


@pytest.mark.parametrize(
    ("acts", "what"),
    [
        ((start, write), "creating a session"),
        ((start, login()), "creating a session"),
    ],
)
def test_nothing_begins_after_the_response_has_started(
    acts: tuple[Callable[[VisitState], None], ...], what: str
) -> None:
    with pytest.raises(UsageError, match=f"{what} needs a cookie"):
        planned(marked(anonymous(), *acts))


@pytest.mark.parametrize("acts", [(start, rotate), (start, login()), (start, lose, login())])
def test_no_new_id_after_the_response_has_started(acts: tuple[Callable[[VisitState], None], ...]) -> None:
    with pytest.raises(UsageError, match="a new id needs a cookie"):
        planned(marked(stored(), *acts))


def test_what_follows_an_end_goes_into_another_session() -> None:
    """As the performer notes it: the ended session is no longer known, and its data nobody's."""
    state = marked(stored(), logout, write)
    assert isinstance(planned(state), End)
    state.stored, state.snapshot, state.ending = None, encode_data({}), False
    step = planned(state)
    assert isinstance(step, Create)
    assert (step.user_id, decode_data(step.data)) == (None, {"flash": "bye"})


def test_a_login_of_another_user_goes_into_another_session() -> None:
    state = marked(stored(), login("bob", since=1))
    assert isinstance(planned(state), End)
    state.stored, state.snapshot = None, encode_data({})
    step = planned(state)
    assert isinstance(step, Create)
    assert (step.user_id, decode_data(step.data)) == ("bob", {"since": 1})


def test_an_absolute_lifetime_bounds_what_is_planned() -> None:
    record = StoredSession("an-id", 1, None, 0, 100 * SECOND_US, 120 * SECOND_US, "", encode_data({}))
    step = planned(stored(record), 70)
    assert isinstance(step, Extend)
    assert step.expires_us == 120 * SECOND_US
    new = planned(marked(stored(record), rotate), 70)
    assert isinstance(new, Rotate)
    assert new.expires_us == 120 * SECOND_US
    full = StoredSession("an-id", 1, None, 0, 120 * SECOND_US, 120 * SECOND_US, "", encode_data({}))
    assert isinstance(planned(stored(full), 110), Nothing)


def test_each_step_tells_the_cookies_fate_and_whether_more_follows() -> None:
    kinds = (Nothing, Drop, EndEverywhere, End, Create, Rotate, Patch, Extend)
    assert {kind for kind in kinds if kind.cookie is Cookie.GIVEN} == {Create, Rotate}
    assert {kind for kind in kinds if kind.cookie is Cookie.REMOVED} == {End}
    assert {kind for kind in kinds if not kind.last} == {End, EndEverywhere}


def test_no_step_shows_id_or_data() -> None:
    for acts in ((write,), (rotate, write), (logout,), (everywhere,), (lose, login("alice", flash="bye"))):
        text = repr(planned(marked(stored(), *acts)))
        assert "an-id" not in text
        assert "bye" not in text
        assert "alice" not in text


REMEMBERED = Terms(1000 * SECOND_US, True)


def remembered(state: VisitState) -> None:
    state.terms = REMEMBERED


def remember(state: VisitState) -> None:
    state.note_login("alice", {}, REMEMBERED)


def moved_on(at_seconds: float, absolute_seconds: float | None = None) -> StoredSession:
    """A session that ends then."""
    absolute_us = None if absolute_seconds is None else int(absolute_seconds * SECOND_US)
    return StoredSession(
        "an-id", 1, "alice", 0, int(at_seconds * SECOND_US), absolute_us, "", encode_data(CART)
    )


# Lifetimes are 100 s, extended below 40 s; the remembered have 1000 s, extended below 400 s.
TERMS_TABLE: dict[str, tuple[VisitState, float, type[Any], dict[str, Any]]] = {
    "anonymous": (marked(anonymous(), remember), 0, Create, {"terms": REMEMBERED}),
    "anonymous, then another login": (marked(anonymous(), remember, login()), 0, Create, {"terms": USUAL}),
    "anonymous, then a logout and data": (
        marked(anonymous(), remember, logout, lambda state: setattr(state, "ending", False), write),
        0,
        Create,
        {"terms": USUAL, "user_id": None},
    ),
    "stored": (marked(stored(), remember), 10, Rotate, {"terms": REMEMBERED, "expires_us": 1010 * SECOND_US}),
    "lost": (marked(stored(), remember, lose), 0, Create, {"terms": REMEMBERED}),
    "new id of a remembered one": (
        marked(stored(), remembered, rotate),
        10,
        Rotate,
        {"terms": REMEMBERED, "expires_us": 1010 * SECOND_US},
    ),
    "login where one was remembered": (
        marked(stored(), remembered, login("alice")),
        10,
        Rotate,
        {"terms": USUAL, "expires_us": 110 * SECOND_US},
    ),
    "remembered, time enough": (marked(stored(moved_on(1000)), remembered), 166, Nothing, {}),
    "remembered, late": (
        marked(stored(moved_on(1000)), remembered),
        167,
        Extend,
        {"expires_us": 1167 * SECOND_US},
    ),
    "remembered, late, with data": (
        marked(stored(moved_on(1000)), remembered, write),
        167,
        Patch,
        {"expires_us": 1167 * SECOND_US},
    ),
}


@pytest.mark.parametrize("name", TERMS_TABLE)
def test_plan_of_a_login_with_terms_of_its_own(name: str) -> None:
    state, at_seconds, kind, fields = TERMS_TABLE[name]
    step = planned(state, at_seconds)
    assert type(step) is kind
    assert {field: getattr(step, field) for field in fields} == fields


@pytest.mark.parametrize(
    ("act", "absolute_seconds", "before", "after"),
    [
        (login("alice"), 500, 500, 570),
        (login("alice"), None, 500, None),
        (login("alice"), 500, None, 570),
        (rotate, 500, 500, 500),
        (rotate, None, 500, 500),
    ],
)
def test_a_login_begins_a_new_absolute_lifetime_and_a_new_id_does_not(
    act: Callable[[VisitState], None],
    absolute_seconds: float | None,
    before: float | None,
    after: float | None,
) -> None:
    state = marked(stored(moved_on(100, before)), act)
    lifetimes = lifetimes_of(100, absolute_seconds)
    step = plan(state, encode_data(state.contents()), 70 * SECOND_US, lifetimes)
    assert isinstance(step, Rotate)
    assert step.absolute_us == (None if after is None else after * SECOND_US)
    assert step.expires_us == 170 * SECOND_US


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (USUAL, "gr-0000-x"),
        (Terms(1, None), "gr-0000-x.i1"),
        (Terms(None, True), "gr-0000-x.p1"),
        (Terms(3_153_600_000 * SECOND_US, False), "gr-0000-x.i3153600000000000.p0"),
    ],
)
def test_terms_stand_behind_the_id(terms: Terms, text: str) -> None:
    assert "gr-0000-x" + terms.text() == text
    assert parted(text) == ("gr-0000-x", terms)


@pytest.mark.parametrize("text", ["a.b", "a.i", "a.p2", "a.p1.i5", "a.i-5", "a.i5.p1.x", "a.i" + "9" * 17])
def test_what_are_no_terms_is_part_of_the_id(text: str) -> None:
    assert parted(text) == (text, USUAL)
