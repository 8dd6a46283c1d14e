"""Checks of patch and modify."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from greenroom.errors import (
    PathThroughListError,
    SessionNotFoundError,
    UsageError,
    VersionConflictError,
)
from greenroom.sessions import ABSENT, SessionData
from greenroom.testing.contract.stage import CheckList, Stage, raises

CHECKS = CheckList()


@CHECKS.check("patch")
async def check_patch_sets_and_unsets_paths(stage: Stage) -> None:
    """Named paths change, everything else stays; the answer is the new session."""
    before = await stage.created(data={"theme": "dark", "cart": {"a": 1, "b": 2}}, label="kept")
    after = await stage.store.patch(
        before.session_id, set={("cart", "c"): 3, "language": "de"}, unset=["theme", ("cart", "a"), "absent"]
    )
    assert after.data == {"cart": {"b": 2, "c": 3}, "language": "de"}
    assert after.version > before.version
    assert (after.label, after.expires, after.user_id) == ("kept", before.expires, None)
    assert await stage.stored(before.session_id) == after


@CHECKS.check("patch")
async def check_patch_merges_dicts(stage: Stage) -> None:
    """Dicts merge key by key at any depth; lists and scalars are whole values."""
    session = await stage.created(data={"a": {"b": {"x": 1, "y": 2}}, "list": [1, 2], "n": 1})
    after = await stage.store.patch(
        session.session_id, set={"a": {"b": {"y": 3, "z": 4}}, "list": [3], "n": {"m": 1}}
    )
    assert after.data == {"a": {"b": {"x": 1, "y": 3, "z": 4}}, "list": [3], "n": {"m": 1}}
    after = await stage.store.patch(session.session_id, unset=["a"], set={"a": {"whole": True}})
    assert after.data["a"] == {"whole": True}
    after = await stage.store.patch(session.session_id, set={("list"): None, "n": 5})
    after = await stage.store.patch(session.session_id, set={("list", "k"): 1, ("n", "k"): 2})
    assert (after.data["list"], after.data["n"]) == ({"k": 1}, {"k": 2}), (
        "a dict replaces a scalar on the path"
    )


@CHECKS.check("patch")
async def check_patch_does_not_reach_into_lists(stage: Stage) -> None:
    """A path that runs through a list is refused, naming it and what to use; nothing is changed."""
    session = await stage.created(data={"cart": {"items": [1, {"n": 2}]}, "theme": "dark"})
    for arguments in (
        {"set": {"theme": "light", ("cart", "items", 0): 2}},
        {"set": {("cart", "items", 1, "n"): 3}},
        {"unset": ["theme", ("cart", "items", 0)]},
    ):
        with raises(PathThroughListError, naming='["cart", "items"]'):
            await stage.store.patch(session.session_id, **arguments)
    if "rotate" in stage.store.features:
        with raises(PathThroughListError, naming='["cart", "items"]'):
            await stage.store.rotate(session.session_id, set={("cart", "items", 0): 2})
    assert await stage.stored(session.session_id) == session
    with raises(VersionConflictError):
        await stage.store.patch(session.session_id, expect={("cart", "items", 0): 1})
    after = await stage.store.patch(
        session.session_id, unset=[("cart", "items")], set={("cart", "items", "a"): 1}
    )
    assert after.data["cart"] == {"items": {"a": 1}}


@CHECKS.check("patch")
async def check_patch_keeps_types(stage: Stage) -> None:
    """Values of every kind pass through patches, beside others that stay untouched."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    session = await stage.created(data={"price": Decimal("1.10"), 5: {"when": moment}})
    after = await stage.store.patch(session.session_id, set={(5, "tags"): {"x", 1}, "big": 2**100})
    assert after.data == {"price": Decimal("1.10"), 5: {"when": moment, "tags": {"x", 1}}, "big": 2**100}
    assert await stage.stored(session.session_id) == after


@CHECKS.check("patch")
async def check_patch_with_expectations(stage: Stage) -> None:
    """Expectations compare with types, and a failed one changes nothing."""
    session = await stage.created(data={"n": 1, "d": {"x": 1, "y": 2}, "none": None})
    good: list[dict[Any, Any]] = [
        {"n": 1},
        {"d": {"y": 2, "x": 1}},
        {("d", "x"): 1, ("d", "z"): ABSENT},
        {("n", "below"): ABSENT},
        {"none": None},
    ]
    for number, expect in enumerate(good):
        after = await stage.store.patch(session.session_id, set={"done": number}, expect=expect)
        assert after.data["done"] == number
    before = await stage.stored(session.session_id)
    bad: list[dict[Any, Any]] = [
        {"n": 2},
        {"n": True},
        {"n": 1.0},
        {"n": ABSENT},
        {"none": ABSENT},
        {"missing": None},
        {"d": {"x": 1}},
        {"n": 1, "d": None},
    ]
    for expect in bad:
        named = list(expect)[-1]
        with raises(VersionConflictError, naming=f'["{named}"]'):
            await stage.store.patch(session.session_id, set={"done": -1}, unset=["d"], expect=expect)
    assert await stage.stored(session.session_id) == before


@CHECKS.check("patch")
async def check_patch_changes_user_and_lifetime(stage: Stage) -> None:
    """Both change in the same step as the data, or alone; None makes the session anonymous."""
    user = stage.user()
    session = await stage.created(data={"n": 1})
    expires = stage.after(120)
    after = await stage.store.patch(session.session_id, set={"n": 2}, user_id=user, expires=expires)
    assert (after.user_id, after.expires, after.data) == (user, expires, {"n": 2})
    after = await stage.store.patch(session.session_id, set={"n": 3})
    assert (after.user_id, after.expires) == (user, expires)
    after = await stage.store.patch(session.session_id, user_id=None)
    assert (after.user_id, after.data) == (None, {"n": 3})
    assert await stage.stored(session.session_id) == after


@CHECKS.check("patch")
async def check_patch_of_nothing_is_a_change(stage: Stage) -> None:
    """A patch that names nothing gives a new version and leaves the rest."""
    before = await stage.created(user_id=stage.user(), data={"n": 1})
    after = await stage.store.patch(before.session_id)
    assert after.version > before.version
    before.version = after.version
    assert after == before
    assert await stage.stored(before.session_id) == after


@CHECKS.check("patch")
async def check_patch_of_missing_session(stage: Stage) -> None:
    """A patch creates nothing, whether the session was deleted or never there."""
    missing = stage.session()
    with raises(SessionNotFoundError):
        await stage.store.patch(missing.session_id, set={"n": 1})
    session = await stage.created()
    await stage.store.delete(session.session_id)
    with raises(SessionNotFoundError):
        await stage.store.patch(session.session_id, set={"n": 1})
    with raises(SessionNotFoundError):
        await stage.store.patch(session.session_id, expect={"n": 1})
    assert await stage.store.get(session.session_id) is None


@CHECKS.check("patch")
async def check_bad_patches_are_refused(stage: Stage) -> None:
    """Bad paths and arguments are the caller's mistakes and change nothing."""
    session = await stage.created(data={"n": 1})
    bad: list[dict[str, Any]] = [
        {"set": {(): 1}},
        {"set": {("a", None): 1}},
        {"set": {True: 1}},
        {"set": {1.5: 1}},
        {"set": {"n": ABSENT}},
        {"set": [("n", 1)]},
        {"unset": "theme"},
        {"unset": [()]},
        {"unset": [["n"]]},
        {"expect": {(): 1}},
        {"user_id": ""},
        {"set": {("deep",) * 65: 1}},
        {"set": {"q": 2, ("q", "a"): 1}},
        {"set": {("q", "a", "b"): 1, "q": {}}},
        {"set": {"q": 1, ("q",): 2}},
    ]
    for arguments in bad:
        with raises(UsageError):
            await stage.store.patch(session.session_id, **arguments)
    assert await stage.stored(session.session_id) == session


@CHECKS.check("modify")
async def check_modify_writes_what_changed(stage: Stage) -> None:
    """The session is changed by the function; the answer is the new session as stored."""
    session = await stage.created(data={"visits": 1, "cart": ["a"]}, absolute_expires=stage.after(7200))
    user = stage.user()

    def change(found: SessionData) -> None:
        found.data["visits"] += 1
        found.data["cart"].append("b")
        found.data["pair"] = (1, 2)
        found.user_id = user
        found.label = "changed"
        found.expires = stage.after(9000)
        found.created = stage.after(-9000)

    after = await stage.store.modify(session.session_id, change)
    assert after.data == {"visits": 2, "cart": ["a", "b"], "pair": [1, 2]}
    assert (after.user_id, after.label) == (user, "changed")
    assert (after.created, after.expires) == (session.created, session.absolute_expires)
    assert after.version > session.version
    assert await stage.stored(session.session_id) == after


@CHECKS.check("modify")
async def check_modify_that_fails_writes_nothing(stage: Stage) -> None:
    """What the function raises comes through; a missing session is an error; async functions are refused."""
    session = await stage.created(data={"n": 1})

    def fail(found: SessionData) -> None:
        found.data["n"] = 2
        raise LookupError("on purpose")

    async def wait(found: SessionData) -> None:
        found.data["n"] = 2

    def rename(found: SessionData) -> None:
        found.session_id = stage.session().session_id

    def replace(found: SessionData) -> dict[str, int]:
        return {**found.data, "n": 2}

    def spoil(found: SessionData) -> None:
        found.data["n"] = object()

    with raises(LookupError, naming="on purpose"):
        await stage.store.modify(session.session_id, fail)
    for change in (wait, rename, spoil, replace):
        with raises(UsageError):
            await stage.store.modify(session.session_id, change)  # type: ignore[arg-type]  # on purpose
    with raises(SessionNotFoundError):
        await stage.store.modify(stage.session().session_id, lambda _: None)
    assert await stage.stored(session.session_id) == session
