"""What was seen of each contender, and what that means in words. Pure."""

from typing import Literal

import msgspec

from benchmarks.races.calls import Calls

TOGETHER = 20
FORGERIES = 10

SlowKind = Literal["writes", "reads"]


class Kept(msgspec.Struct, frozen=True):
    """Of so many changes that were all answered with success, how many are stored."""

    answered: int
    stored: int


class Afterwards(msgspec.Struct, frozen=True):
    """Who is who after a login or logout that was faster than another request of the same browser.

    `slow_status` answered that request; None if there was none. `old_*` is what a request gets that brings
    the cookie from before.
    """

    slow_status: int | None
    browser_user: str | None
    old_user: str | None
    old_has_data: bool


class Traffic(msgspec.Struct, frozen=True):
    """What a hundred requests cost."""

    calls: Calls
    set_cookies: int


class Findings(msgspec.Struct):
    """Everything seen of one contender."""

    title: str
    has_store: bool = True
    own_keys: Kept = Kept(0, 0)
    nested_keys: Kept = Kept(0, 0)
    counted: Kept = Kept(0, 0)
    tallied: Kept | None = None
    logout: Afterwards = Afterwards(None, None, None, old_has_data=False)
    login: Afterwards = Afterwards(None, None, None, old_has_data=False)
    logout_races: dict[SlowKind, Afterwards] = {}
    login_races: dict[SlowKind, Afterwards] = {}
    traffic: Traffic = Traffic(Calls(), 0)
    made_up_adopted: int = 0
    ended_adopted: int = 0
    redirect_saw_it: bool = False


def kept(seen: Kept) -> str:
    """Return how many of the changes survived."""
    return f"{seen.stored} of {seen.answered}" if seen.answered else "none answered"


def after_logout(seen: Afterwards) -> str:
    """Return what is left of a logout."""
    if seen.browser_user is not None:
        return "**undone**: the browser is logged in again"
    if seen.old_user is not None:
        return "**a copied cookie is still logged in**"
    return f"holds{_slow(seen)}"


def after_login(seen: Afterwards, user: str) -> str:
    """Return what is left of a login, and of the session from before it."""
    if seen.browser_user != user:
        return "**undone**: the browser is logged out"
    if seen.old_user is not None:
        return "**the cookie from before is logged in**"
    if seen.old_has_data:
        return f"holds; the cookie from before still works, logged out{_slow(seen)}"
    return f"holds{_slow(seen)}"


def _slow(seen: Afterwards) -> str:
    if seen.slow_status is None:
        return ""
    return f"; the slow request gets {seen.slow_status}"


def refused(adopted: int) -> str:
    """Return how many of the forged ids were refused."""
    return f"{FORGERIES - adopted} of {FORGERIES}"


def rows_of(findings: list[Findings], user: str) -> list[tuple[str, ...]]:
    """Return the rows of the table, a question each, with an answer from every contender."""

    def row(question: str, answers: list[str]) -> tuple[str, ...]:
        return (question, *answers)

    together = f"{TOGETHER} requests at once"
    return [
        row(f"{together}, each sets a key of its own: kept", [kept(each.own_keys) for each in findings]),
        row(
            f"{together}, each a key of its own below one: kept",
            [kept(each.nested_keys) for each in findings],
        ),
        row(f"{together}, each adds 1 to one number: counted", [kept(each.counted) for each in findings]),
        row(
            "the same, with the library's own remedy",
            ["none" if each.tallied is None else kept(each.tallied) for each in findings],
        ),
        row("logout", [after_logout(each.logout) for each in findings]),
        *(
            row(
                f"logout while a slow request {kind}",
                [after_logout(each.logout_races[kind]) for each in findings],
            )
            for kind in KINDS
        ),
        row("login", [after_login(each.login, user) for each in findings]),
        *(
            row(
                f"login while a slow request {kind}",
                [after_login(each.login_races[kind], user) for each in findings],
            )
            for kind in KINDS
        ),
        row("made-up ids refused", [refused(each.made_up_adopted) for each in findings]),
        row("ids of ended sessions refused", [refused(each.ended_adopted) for each in findings]),
        row(
            "a redirect's target sees what was saved",
            ["yes" if each.redirect_saw_it else "**no**" for each in findings],
        ),
        row("store writes per 100 mixed requests", [_calls(each, "writes") for each in findings]),
        row("store reads per 100 mixed requests", [_calls(each, "reads") for each in findings]),
        row(
            "Set-Cookie headers per 100 mixed requests", [f"{each.traffic.set_cookies}" for each in findings]
        ),
    ]


def _calls(each: Findings, which: Literal["reads", "writes"]) -> str:
    return f"{getattr(each.traffic.calls, which)}" if each.has_store else "no store"


KINDS: tuple[SlowKind, ...] = ("writes", "reads")
