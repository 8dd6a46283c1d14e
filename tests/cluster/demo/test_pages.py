"""The shop's pages for people: forms lead to what was saved, and nothing that a user wrote is run."""

import re

import httpx
import pytest

import greenroom
from greenroom.testing import FaultyStore
from greenroom_cluster.demo.shop import COOKIE, create_app
from tests.cluster.demo.test_shop import SECRET

pytestmark = pytest.mark.trio

PAGES = {"accept": "text/html,application/xhtml+xml"}


def person(store: greenroom.BaseSessionStore, device: str = "Laptop") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=create_app(store, SECRET)),
        base_url="http://shop",
        headers={**PAGES, "user-agent": device},
        follow_redirects=True,
    )


def handles(page: str) -> list[str]:
    return re.findall(r'name="handle" value="([^"]+)"', page)


async def test_every_form_leads_to_a_page_that_shows_what_it_did() -> None:
    laptop = person(greenroom.MemoryStore())
    assert "Add to the cart" in (await laptop.get("/")).text
    assert "Your name" in (await laptop.get("/login")).text
    assert not laptop.cookies
    added = await laptop.post("/cart/add", data={"sku": "mug", "quantity": "2"})
    assert (added.request.url.path, added.history[0].status_code) == ("/cart", 303)
    assert "Enamel mug: 2" in added.text
    assert "Nobody is logged in" in added.text
    assert "Logged in as <b>ann</b>" in (await laptop.post("/login", data={"user": "ann"})).text
    assert 'value="ring"' in (await laptop.post("/note", data={"text": "ring"})).text
    assert "Enamel mug" not in (await laptop.post("/cart/remove", data={"sku": "mug"})).text
    left = await laptop.post("/logout")
    assert left.request.url.path == "/login"
    assert not laptop.cookies
    assert (await laptop.get("/cart")).status_code == 401


async def test_devices_are_listed_and_logged_out() -> None:
    store = greenroom.MemoryStore()
    laptop, phone, stranger = (person(store, each) for each in ("Laptop", "Phone", "Stranger"))
    assert (await laptop.get("/devices")).status_code == 401
    for browser, user in ((laptop, "ann"), (phone, "ann"), (stranger, "bob")):
        await browser.post("/login", data={"user": user})
    page = (await laptop.get("/devices")).text
    assert "Stranger" not in page
    listed = (await laptop.get("/devices", headers={"accept": "application/json"})).json()["devices"]
    by_label = {each["label"]: each for each in listed}
    assert set(handles(page)) == {each["handle"] for each in listed}
    assert (by_label["Laptop"]["this"], by_label["Phone"]["this"]) == (True, False)

    # Nobody ends the devices of another user, whatever handle they name.
    await stranger.post("/devices/end", data={"handle": by_label["Phone"]["handle"]})
    assert (await phone.get("/cart")).status_code == 200
    assert (await laptop.post("/devices/end", data={"handle": "made up"})).status_code == 400

    after = await laptop.post("/devices/end", data={"handle": by_label["Phone"]["handle"]})
    assert (after.request.url.path, "Phone" in after.text) == ("/devices", False)
    assert (await phone.get("/cart")).status_code == 401
    away = await laptop.post("/devices/end", data={"handle": by_label["Laptop"]["handle"]})
    assert away.request.url.path == "/login"
    assert (await laptop.get("/cart")).status_code == 401
    assert (await stranger.get("/cart")).status_code == 200


async def test_nothing_that_a_user_wrote_becomes_part_of_a_page() -> None:
    script = "<script>alert(1)</script>\"'"
    laptop = person(greenroom.MemoryStore(), script)
    await laptop.post("/login", data={"user": script})
    await laptop.post("/note", data={"text": script})
    for path in ("/cart", "/devices"):
        page = await laptop.get(path)
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"


async def test_no_page_and_no_address_holds_the_id() -> None:
    laptop = person(greenroom.MemoryStore())
    answers = [
        await laptop.post("/login", data={"user": "ann"}),
        await laptop.post("/cart/add", data={"sku": "mug"}),
        await laptop.get("/devices"),
        await laptop.get("/account"),
    ]
    session_id = laptop.cookies[COOKIE].partition(".")[0]
    assert session_id.startswith("gr-")
    for answer in answers:
        assert answer.status_code == 200
        assert session_id not in answer.text
        assert all(session_id not in str(each.request.url) for each in (answer, *answer.history))


async def test_trouble_is_told_on_a_page_too() -> None:
    store = FaultyStore()
    laptop = person(store)
    await laptop.post("/cart/add", data={"sku": "mug"})
    assert (await laptop.post("/cart/add", data={"sku": "yacht"})).status_code == 400
    store.fail("patch", greenroom.UnavailableError("no primary in time"))
    answer = await laptop.post("/cart/add", data={"sku": "mug"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "this was not done" in answer.text
