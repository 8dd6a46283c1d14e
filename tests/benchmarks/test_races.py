"""The races' judgements, and what they are judged from."""

import asyncio

import pytest

from benchmarks.races.browser import CookieChange, cookie_change
from benchmarks.races.calls import Calls, calls_of
from benchmarks.races.findings import (
    Afterwards,
    Findings,
    Kept,
    Traffic,
    after_login,
    after_logout,
    kept,
    rows_of,
)
from benchmarks.races.greenroom_shops import open_memory
from benchmarks.races.overhead import BASE, Turn, costs_of
from benchmarks.races.page import Report, page
from benchmarks.races.scenes import findings_of, mixed_requests
from benchmarks.races.shops import USER, Opening
from benchmarks.races.starlette_shops import open_cookies


def afterwards(
    browser: str | None, old: str | None = None, *, data: bool = False, status: int | None = 200
) -> Afterwards:
    return Afterwards(status, browser, old, old_has_data=data)


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ("session=abc; Path=/; HttpOnly", ("session", "abc")),
        ("session=abc; Max-Age=0", ("session", None)),
        ("session=abc; max-age=60; expires=Thu, 01 Jan 1970 00:00:00 GMT", ("session", "abc")),
        ("session=''; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT", ("session", None)),
        ("session=a=b==; Secure", ("session", "a=b==")),
    ],
)
def test_cookies_are_kept_as_browsers_keep_them(header: str, change: tuple[str, str | None]) -> None:
    assert cookie_change(header) == CookieChange(*change)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (afterwards(None), "holds; the slow request gets 200"),
        (afterwards(None, status=None), "holds"),
        (afterwards(None, status=400), "holds; the slow request gets 400"),
        (afterwards(USER, USER), "**undone**: the browser is logged in again"),
        (afterwards(None, USER), "**a copied cookie is still logged in**"),
    ],
)
def test_a_logout_holds_if_neither_the_browser_nor_a_copy_is_logged_in(seen: Afterwards, said: str) -> None:
    assert after_logout(seen) == said


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (afterwards(USER), "holds; the slow request gets 200"),
        (afterwards(None), "**undone**: the browser is logged out"),
        (afterwards("eve"), "**undone**: the browser is logged out"),
        (afterwards(USER, USER), "**the cookie from before is logged in**"),
        (
            afterwards(USER, data=True, status=None),
            "holds; the cookie from before still works, logged out",
        ),
    ],
)
def test_a_login_holds_if_the_browser_is_logged_in_and_the_old_id_is_not(seen: Afterwards, said: str) -> None:
    assert after_login(seen, USER) == said


def test_what_was_not_answered_is_not_called_lost() -> None:
    assert kept(Kept(20, 1)) == "1 of 20"
    assert kept(Kept(0, 0)) == "none answered"


def test_every_contender_answers_every_question() -> None:
    seen = {"writes": afterwards(None), "reads": afterwards(None)}
    cookies = Findings(title="cookies", has_store=False, logout_races=seen, login_races=seen)
    stored = Findings(
        title="stored",
        logout_races=seen,
        login_races=seen,
        traffic=Traffic(Calls(3, 7), 1),
        tallied=Kept(20, 20),
    )
    rows = {question: answers for question, *answers in rows_of([cookies, stored], USER)}
    assert rows["store writes per 100 mixed requests"] == ["no store", "7"]
    assert rows["store reads per 100 mixed requests"] == ["no store", "3"]
    assert rows["the same, with the library's own remedy"] == ["none", "20 of 20"]
    assert rows["made-up ids refused"] == ["10 of 10", "10 of 10"]
    assert all(len(answers) == 2 for answers in rows.values())


def test_commands_of_redis_are_reads_or_writes_and_others_are_an_error() -> None:
    statistics = {
        "cmdstat_get": {"calls": 2},
        "cmdstat_set": {"calls": 3},
        "cmdstat_client|setinfo": {"calls": 9},
    }
    assert calls_of(statistics) == Calls(2, 3)
    with pytest.raises(ValueError, match="is xadd a read or a write"):
        calls_of({"cmdstat_xadd": {"calls": 1}})


def test_the_mix_has_a_hundred_requests() -> None:
    requests = mixed_requests()
    assert len(requests) == 100
    assert sum(method == "POST" for _, method, _ in requests) == 13
    assert sum(path == "/health" for _, _, path in requests) == 19
    assert all(who == "customer" for who, method, _ in requests if method == "POST")


def test_costs_are_compared_round_by_round() -> None:
    base, ours = [Turn(1e-3, 1e-4), Turn(9e-3, 1e-4)], [Turn(2e-3, 3e-4), Turn(10e-3, 3e-4)]
    _, cost = costs_of({BASE: base, "ours": ours})
    assert (cost.more_wall_us, cost.more_cpu_us) == (1000, 200)


def played(opening: Opening, *, has_store: bool) -> Findings:
    async def play() -> Findings:
        async with opening({}) as shop:
            return await findings_of("one", shop, has_store=has_store)

    return asyncio.run(play())


def test_greenroom_loses_no_key_and_keeps_logins_and_logouts() -> None:
    seen = played(open_memory, has_store=True)
    assert seen.own_keys == seen.nested_keys == seen.tallied == Kept(20, 20)
    assert after_logout(seen.logout) == "holds"
    assert after_login(seen.login, USER) == "holds"
    for race in seen.logout_races.values():
        assert after_logout(race).startswith("holds")
    for race in seen.login_races.values():
        assert after_login(race, USER) == "holds; the slow request gets 200"
    assert (seen.made_up_adopted, seen.ended_adopted, seen.redirect_saw_it) == (0, 0, True)
    assert seen.traffic == Traffic(Calls(61, 11), 1)


def test_the_races_show_what_cookies_lose() -> None:
    seen = played(open_cookies, has_store=False)
    assert (seen.own_keys, seen.tallied) == (Kept(20, 1), None)
    assert after_logout(seen.logout_races["writes"]).startswith("**undone**")
    assert (seen.made_up_adopted, seen.ended_adopted) == (0, 10)


def test_the_page_names_the_machine_the_versions_and_the_command() -> None:
    seen = {"writes": afterwards(None), "reads": afterwards(None)}
    report = Report(
        when="2020-01-01",
        machine={"cores": "2"},
        load=0.5,
        versions={"django": "5.2"},
        skipped={"Litestar, Redis": "redis-server is not installed"},
        findings=[Findings(title="one", logout_races=seen, login_races=seen)],
        turns={"a page": {BASE: [Turn(1e-3, 1e-4)]}},
    )
    text = page(report)
    for part in ("cores: 2", "django 5.2", "benchmarks.races`", "left out: Litestar", "### Cost of a page"):
        assert part in text
