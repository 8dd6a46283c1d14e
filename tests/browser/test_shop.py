"""A real browser walks the shop while the actor that holds its session is killed underneath."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Device, Shop

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]

ROUNDS = 4

Devices = Callable[[str], Device]


def open_page(tab: Any, address: str) -> None:
    response = tab.goto(address)
    assert response.status == 200, address


def log_in(tab: Any, shop: str, user: str) -> None:
    open_page(tab, f"{shop}/login")
    tab.get_by_label("Your name").fill(user)
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_text(f"Logged in as {user}").wait_for()


def begin(tab: Any, sku: str) -> None:
    """Press a button of the catalogue, without waiting for what comes of it."""
    pressed = "sku => { document.querySelector(`input[value=${sku}]`).form.requestSubmit(); }"
    tab.evaluate(pressed, sku)


def shows(tab: Any, text: str) -> None:
    tab.get_by_text(text, exact=True).wait_for()


def is_logged_out(tab: Any, address: str) -> None:
    response = tab.goto(address)
    assert response.status == 401, address
    assert tab.get_by_role("button", name="Log in").is_visible()


def test_a_customer_with_two_tabs_and_two_devices_while_actors_are_killed(
    shop: Shop, device: Devices
) -> None:
    first, second = shop.addresses
    laptop, phone = device("Laptop"), device("Phone")

    # A cart without a login; the login keeps it and changes the id.
    tab = laptop.tab()
    open_page(tab, first)
    assert laptop.context.cookies() == [], "looking around makes no session"
    begin(tab, "rug")
    shows(tab, "Wool rug: 1")
    before = laptop.cookie["value"]
    log_in(tab, first, "ann")
    shows(tab, "Wool rug: 1")
    kept = laptop.cookie
    assert kept["value"] != before
    assert kept["httpOnly"]
    assert kept["sameSite"] == "Lax"
    assert tab.evaluate("document.cookie") == "", "out of reach of scripts"

    # Two tabs at once, each through another worker, with the session's actor killed in the middle.
    other = laptop.tab()
    for number in range(1, ROUNDS + 1):
        open_page(tab, first)
        open_page(other, second)
        shop.wait_healthy()
        epoch = shop.epoch_of(kept["value"])
        kill = shop.kill_the_primary_of(kept["value"])
        begin(tab, "mug")
        kill()
        begin(other, "lamp" if number % 2 else "mug")
        for each in (tab, other):
            each.wait_for_url(re.compile(r"/cart$"))
            assert each.get_by_role("alert").count() == 0, each.inner_text("body")
        assert shop.epoch_of(kept["value"]) > epoch, "another actor took over"
    for each, address in ((tab, second), (other, first)):
        open_page(each, f"{address}/cart")
        shows(each, f"Enamel mug: {ROUNDS + ROUNDS // 2}")
        shows(each, f"Reading lamp: {ROUNDS - ROUNDS // 2}")
        shows(each, "Wool rug: 1")
    assert laptop.cookie["value"] == kept["value"]

    # The other device logs in, is listed, and is logged out while the actor that holds it is killed.
    there = phone.tab()
    log_in(there, second, "ann")
    lost = phone.cookie
    open_page(tab, f"{first}/devices")
    rows = tab.get_by_role("listitem")
    assert rows.count() == 2
    assert rows.filter(has_text="(this device)").inner_text().startswith("Laptop")
    row = rows.filter(has_text="Phone")
    shop.wait_healthy()
    kill = shop.kill_the_primary_of(lost["value"])
    kill()
    row.get_by_role("button", name="Log out").click()
    tab.get_by_text("Phone").wait_for(state="detached")
    assert tab.get_by_role("alert").count() == 0, tab.inner_text("body")
    assert tab.get_by_role("listitem").count() == 1

    # It is out at once, through either worker, with the old cookie put back, and once all is whole again.
    for healthy in (False, True):
        if healthy:
            shop.wait_healthy()
        for address in shop.addresses:
            phone.context.add_cookies([lost])
            is_logged_out(there, f"{address}/cart")
            is_logged_out(there, f"{address}/devices")

    # The device that asked is in, with its cart; and what it shows nowhere holds the id.
    open_page(tab, f"{second}/cart")
    shows(tab, "Wool rug: 1")
    assert kept["value"].partition(".")[0] not in tab.content() + tab.url

    # Logging out here: the button "back" shows nothing that a cache kept.
    tab.get_by_role("button", name="Log out").click()
    tab.wait_for_url(re.compile(r"/login$"))
    assert laptop.context.cookies() == []
    tab.go_back()
    assert tab.get_by_text("Wool rug").count() == 0
    is_logged_out(other, f"{first}/cart")
    laptop.context.add_cookies([kept])
    is_logged_out(other, f"{second}/cart")


def test_another_site_can_neither_log_out_nor_order(shop: Shop, device: Devices) -> None:
    """SameSite=Lax: a form of another site comes without the cookie, and so changes nothing."""
    laptop = device("Laptop")
    tab, hostile = laptop.tab(), laptop.tab()
    (address, _) = shop.addresses
    log_in(tab, address, "bob")
    for path in ("/logout", "/note?x"):
        hostile.goto("about:blank")
        hostile.set_content(
            f'<form method="post" action="{address}{path}"><input name="text" value="forged"></form>'
        )
        with hostile.expect_navigation():
            hostile.evaluate("document.forms[0].submit()")
        assert hostile.url.startswith(address)
        open_page(tab, f"{address}/cart")
        shows(tab, "Logged in as bob.")
        assert "forged" not in tab.content()


def test_a_planted_cookie_is_worth_nothing_after_the_login(shop: Shop, device: Devices) -> None:
    """Session fixation: who gave the victim a session of their own does not share its login."""
    attacker, victim = device("Attacker"), device("Victim")
    address, other = shop.addresses
    planting = attacker.tab()
    open_page(planting, address)
    begin(planting, "pan")
    shows(planting, "Iron pan: 1")
    planted = attacker.cookie

    victim.context.add_cookies([planted])
    tab = victim.tab()
    log_in(tab, address, "cleo")
    assert victim.cookie["value"] != planted["value"]
    for each in (address, other):
        is_logged_out(planting, f"{each}/cart")
        is_logged_out(planting, f"{each}/devices")

    # A made-up id is not taken over either.
    made_up = device("Made up")
    made_up.context.add_cookies([{**planted, "value": "gr-0000-" + "A" * 32}])
    stranger = made_up.tab()
    log_in(stranger, address, "dora")
    assert not made_up.cookie["value"].startswith("gr-0000-" + "A" * 32)
