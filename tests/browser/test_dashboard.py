"""An operator watches the dashboard in a real browser while actors and nodes are killed."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom_cluster.cluster_status import ClusterStatus
from tests.browser.conftest import PAGE_MILLISECONDS, what_is_missing
from tests.browser.test_website import Reader
from tests.browser.watched import DATUM, USER, WATCHED, Watched, show_token, watched_cluster

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]

BEHIND_SECONDS = 2.0
CHANGED_SECONDS = 60.0
PAUSE_MILLISECONDS = 50.0
SHOWN_SHARDS = """
() => [...document.querySelectorAll("#shards > li")].map(({dataset, children}) => ({
    shard: Number(children[0].textContent),
    state: children[1].textContent.slice(2),
    epoch: Number(dataset.epoch),
    primary: dataset.primary,
    backups: dataset.backups,
}))
"""
SHOWN_ACTORS = """
() => [...document.querySelectorAll("#actors tbody tr")].map(({cells}) => ({
    slot: cells[0].textContent,
    primaries: Number(cells[4].textContent),
    backups: Number(cells[5].textContent),
    pid: Number(cells[7].textContent),
}))
"""


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    if missing := what_is_missing():
        pytest.skip(missing)
    with watched_cluster() as watched:
        watched.write(40)
        yield watched


@pytest.fixture
def operator(chrome: Any, watched: Watched) -> Iterator[Reader]:
    """A browser that shows the dashboard of a whole cluster."""
    watched.wait_healthy()
    reader = Reader(chrome)
    reader.context.set_default_timeout(PAGE_MILLISECONDS)
    show_token(reader.page, watched)
    reader.complaints.clear()  # of the answer 401, with which the form came
    yield reader
    reader.context.close()


def shards_of(found: ClusterStatus) -> list[dict[str, Any]]:
    return [
        {
            "shard": shard.shard,
            "state": {"full": "whole"}.get(shard.state, shard.state.replace("_", " ")),
            "epoch": shard.epoch,
            "primary": shard.primary,
            "backups": " ".join(shard.backups),
        }
        for shard in found.shards
    ]


def actors_of(found: ClusterStatus) -> list[dict[str, Any]]:
    return [
        {"slot": each.slot, "primaries": each.primaries, "backups": each.backups, "pid": each.pid}
        for each in found.actors
    ]


def until(page: Any, holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, what
        page.wait_for_timeout(PAUSE_MILLISECONDS)


def told_by(found: ClusterStatus) -> list[list[dict[str, Any]]]:
    return [shards_of(found), actors_of(found)]


def shown_on(page: Any) -> list[list[dict[str, Any]]]:
    return [page.evaluate(SHOWN_SHARDS), page.evaluate(SHOWN_ACTORS)]


def agree_within_two_seconds(page: Any, watched: Watched) -> ClusterStatus:
    """See the page show what status tells, no later than two seconds after that has last changed."""
    found, since = watched.status(), time.monotonic()
    while (shown := shown_on(page)) != told_by(found):
        now = watched.status()
        if told_by(now) != told_by(found):
            found, since = now, time.monotonic()
        elif time.monotonic() - since > BEHIND_SECONDS:
            assert shown == told_by(found)
        page.wait_for_timeout(PAUSE_MILLISECONDS)
    return found


def test_it_shows_what_status_does_while_actors_are_killed(operator: Reader, watched: Watched) -> None:
    page = operator.page
    with watched.load():
        for _ in range(3):
            watched.wait_healthy()
            before = agree_within_two_seconds(page, watched)
            victim = before.shards[0].primary
            hit = [shard.shard for shard in before.shards if shard.primary == victim]
            epochs = {shard.shard: shard.epoch for shard in before.shards}
            watched.kill_actor(victim)

            def taken_over() -> bool:
                shards = watched.status().shards
                return all(shards[number].epoch > epochs[number] for number in hit)  # noqa: B023

            def is_shown() -> bool:
                shown = page.evaluate(SHOWN_SHARDS)
                return all(shown[number]["epoch"] > epochs[number] for number in hit)  # noqa: B023

            until(page, taken_over, CHANGED_SECONDS, "others take over")
            until(page, is_shown, BEHIND_SECONDS, "the page shows it")
            agree_within_two_seconds(page, watched)
    watched.wait_healthy()
    past = page.locator("#past tbody")
    past.get_by_text(re.compile(f"^actor {victim} (is up|was started again)$")).first.wait_for()
    assert operator.complaints == []


def test_a_lost_node_is_named_with_what_to_do(operator: Reader, watched: Watched) -> None:
    page = operator.page
    advised = page.locator("#advised")
    assert "Nothing to do" in advised.inner_text()
    watched.kill_node("n3")
    advised.get_by_text("greenroom forget-node n3").wait_for()
    assert "Do" in advised.inner_text()
    assert "down" in page.locator("#nodes tbody").inner_text()
    agree_within_two_seconds(page, watched)
    watched.start_node("n3")
    watched.wait_healthy()
    advised.get_by_text("Nothing to do").wait_for()
    agree_within_two_seconds(page, watched)


def test_the_page_holds_no_id_and_no_datum(operator: Reader, watched: Watched) -> None:
    assert len(watched.ids) >= 40
    shown = operator.page.content()
    answer = operator.context.request.get(f"{watched.url}/board.js").text()
    for secret in (*watched.ids, USER, DATUM, watched.token):
        assert secret not in shown + answer
    assert watched.token not in "".join(operator.asked)
    (cookie,) = operator.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/dashboard")
    assert cookie["expires"] == -1
    assert operator.page.evaluate("document.cookie") == ""


def test_an_operator_signs_out(operator: Reader, watched: Watched) -> None:
    other = operator.context.new_page()
    other.goto(watched.url)
    other.locator("#shards > li").first.wait_for()
    operator.page.get_by_role("button", name="Sign out").press("Enter")
    operator.page.get_by_label("Token").wait_for()
    assert operator.context.cookies() == []
    other.get_by_label("Token").wait_for()


def test_hundreds_of_shards_fit_a_phone(chrome: Any) -> None:
    with watched_cluster(replace(WATCHED, shards=512)) as watched:
        watched.wait_healthy()
        for scheme in ("light", "dark"):
            reader = Reader(chrome, scheme)
            reader.context.set_default_timeout(PAGE_MILLISECONDS)
            reader.page.set_viewport_size({"width": 360, "height": 740})
            show_token(reader.page, watched)
            assert reader.page.locator("#shards > li").count() == 512
            agree_within_two_seconds(reader.page, watched)
            assert reader.page.evaluate("document.documentElement.scrollWidth") == 360
            reader.context.close()


def test_within_tls_a_certificate_opens_it(chrome: Any) -> None:
    with watched_cluster(replace(WATCHED, tls=True)) as watched:
        watched.wait_healthy()
        files = watched.files_of("operator")
        shown = {
            "origin": watched.url.removesuffix("/dashboard"),
            "certPath": files["tls_cert"],
            "keyPath": files["tls_key"],
        }
        # No browser knows the authority of this run, as an operator's would that of a company.
        operator = Reader(chrome, ignore_https_errors=True, client_certificates=[shown])
        stranger = Reader(chrome, ignore_https_errors=True)
        for reader in (operator, stranger):
            reader.context.set_default_timeout(PAGE_MILLISECONDS)
            assert watched.url.startswith("https://")
            reader.page.goto(watched.url)
        stranger.page.get_by_label("Token").wait_for()
        operator.page.locator("#shards > li").first.wait_for()
        agree_within_two_seconds(operator.page, watched)
        assert not operator.page.get_by_role("button", name="Sign out").is_visible()
        assert (operator.context.cookies(), operator.complaints) == ([], [])
        for reader in (operator, stranger):
            reader.context.close()


def test_it_asks_nobody_else_and_runs_nothing_that_is_inline(operator: Reader, watched: Watched) -> None:
    origin = watched.url.removesuffix("/dashboard")
    assert [each for each in operator.asked if not each.startswith(f"{origin}/dashboard")] == []
    refused = """
    kind => new Promise(resolve => {
        document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
        const made = document.createElement(kind);
        const text = kind === "script" ? "window.ran = 1" : "body { color: red }";
        try { made.textContent = text; } catch { resolve("thrown"); }
        document.head.append(made);
    })
    """
    assert operator.page.evaluate(refused, "style") == "style-src-elem"
    assert operator.page.evaluate(refused, "script") in {"require-trusted-types-for", "thrown"}
    assert operator.page.evaluate("window.ran") is None
