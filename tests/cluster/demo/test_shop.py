"""The shop keeps carts and logins as its customers are told, over any store."""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import pytest
import trio

import greenroom
from greenroom.testing import FaultyStore
from greenroom.web import Session
from greenroom_cluster.demo.shop import COOKIE, create_app

SECRET = "a secret for tests only, long enough"

pytestmark = pytest.mark.trio


def signed(session_id: str) -> str:
    """Return the cookie that the shop would give to this session."""
    return Session(secret=SECRET, dev=True, cookie_name=COOKIE).signer.sign(session_id)


class Customer:
    """A client of the shop that sends the cookie it is told to, and no other."""

    def __init__(self, store: greenroom.BaseSessionStore) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_app(store, SECRET)),
            base_url="http://shop",
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self.cookie: str | None = None

    async def get(self, path: str) -> httpx.Response:
        return await self._send("GET", path, None)

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self._send("POST", path, form)

    async def _send(self, method: str, path: str, form: dict[str, str] | None) -> httpx.Response:
        headers = {"user-agent": "Netscape é" * 40}
        if self.cookie is not None:
            headers["cookie"] = f"{COOKIE}={self.cookie}"
        response = await self.client.request(
            method, path, data=form, headers={k: v.encode() for k, v in headers.items()}
        )
        self.cookie = response.cookies.get(COOKIE) or self.cookie
        return response


@pytest.fixture
def store() -> greenroom.MemoryStore:
    return greenroom.MemoryStore()


@pytest.fixture
def customer(store: greenroom.MemoryStore) -> Customer:
    return Customer(store)


async def test_looking_around_makes_no_session(customer: Customer) -> None:
    response = await customer.get("/")
    assert response.status_code == 200
    assert "Enamel mug" in response.text
    assert "set-cookie" not in response.headers
    assert (await customer.get("/cart")).status_code == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(customer: Customer) -> None:
    response = await customer.post("/cart/add", sku="mug", quantity="2")
    attributes = {part.strip().lower() for part in response.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    assert "secure" not in attributes


async def test_a_cart_filled_before_the_login_survives_it_and_the_old_id_dies(customer: Customer) -> None:
    await customer.post("/cart/add", sku="mug", quantity="2")
    planted = customer.cookie
    response = await customer.post("/login", user="ann")
    assert response.json() == {"user": "ann", "cart": {"mug": 2}, "note": None}
    assert customer.cookie != planted
    assert (await customer.get("/account")).json()["user"] == "ann"
    customer.cookie = planted
    assert (await customer.get("/cart")).status_code == 401
    assert (await customer.post("/cart/add", sku="pan")).status_code == 401
    assert (await customer.post("/note", text="hello")).status_code == 401


async def test_a_cookie_that_names_no_session_never_becomes_one(customer: Customer) -> None:
    unknown = "gr-0000-" + "A" * 32
    for invented in (unknown, signed(unknown), "x" * 300):
        customer.cookie = invented
        assert (await customer.post("/login", user="ann")).status_code == 200
        assert customer.cookie != invented


async def test_the_cart_adds_up_and_lets_go(customer: Customer) -> None:
    await customer.post("/login", user="ann")
    await customer.post("/cart/add", sku="mug", quantity="2")
    await customer.post("/cart/add", sku="mug", quantity="3")
    await customer.post("/cart/add", sku="pan")
    await customer.post("/note", text=" ring twice ")
    shown = (await customer.get("/cart")).json()
    assert shown == {"user": "ann", "cart": {"mug": 5, "pan": 1}, "note": "ring twice"}
    assert (await customer.post("/cart/remove", sku="mug")).json()["cart"] == {"pan": 1}


async def test_requests_at_once_all_count(customer: Customer) -> None:
    await customer.post("/login", user="ann")
    async with trio.open_nursery() as nursery:
        for sku in ("mug", "mug", "pan", "mug", "rug"):
            nursery.start_soon(lambda sku: customer.post("/cart/add", sku=sku, quantity="2"), sku)
        nursery.start_soon(lambda: customer.post("/note", text="ring"))
    shown = (await customer.get("/cart")).json()
    assert (shown["cart"], shown["note"]) == ({"mug": 6, "pan": 2, "rug": 2}, "ring")


async def test_after_the_logout_nothing_brings_the_login_back(customer: Customer) -> None:
    await customer.post("/login", user="ann")
    cookie = customer.cookie
    assert (await customer.post("/logout")).status_code == 200
    customer.cookie = cookie
    for path, form in (
        ("/cart/add", {"sku": "mug"}),
        ("/note", {"text": "x"}),
        ("/cart/remove", {"sku": "mug"}),
    ):
        assert (await customer.post(path, **form)).status_code == 401
    for path in ("/cart", "/account"):
        assert (await customer.get(path)).status_code == 401


async def test_an_account_needs_a_login_and_tells_the_device(customer: Customer) -> None:
    await customer.post("/cart/add", sku="mug")
    assert (await customer.get("/account")).status_code == 401
    customer.cookie = None
    await customer.post("/login", user="ann")
    label = (await customer.get("/account")).json()["label"]
    assert label.startswith("Netscape")
    assert len(label.encode()) <= 256


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/login", {}),
        ("/login", {"user": "x" * 65}),
        ("/cart/add", {"sku": "yacht"}),
        ("/cart/add", {"sku": "mug", "quantity": "0"}),
        ("/cart/add", {"sku": "mug", "quantity": "-1"}),
        ("/cart/remove", {}),
        ("/note", {"text": "x" * 501}),
    ],
)
async def test_a_wrong_request_is_refused_and_says_how(customer: Customer, path: str, form: Any) -> None:
    await customer.post("/cart/add", sku="mug")
    response = await customer.post(path, **form)
    assert (response.status_code, response.json()["error"]) == (400, "refused")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (greenroom.UnavailableError("no primary in time"), "unavailable"),
        (greenroom.OutcomeUnknownError("not answered", harmless_to_repeat=False), "outcome-unknown"),
    ],
)
async def test_the_store_s_trouble_is_told_truthfully(raised: Exception, error: str) -> None:
    class TroubledStore(greenroom.MemoryStore):
        async def get(self, session_id: str) -> greenroom.SessionData | None:
            raise raised

    customer = Customer(TroubledStore())
    customer.cookie = signed(greenroom.new_session_id())
    for response in (await customer.get("/cart"), await customer.post("/cart/add", sku="mug")):
        assert (response.status_code, response.json()["error"]) == (503, error)
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (greenroom.UnavailableError("no primary in time"), "unavailable"),
        (greenroom.OutcomeUnknownError("not answered", harmless_to_repeat=False), "outcome-unknown"),
    ],
)
async def test_trouble_while_saving_is_told_truthfully_too(raised: Exception, error: str) -> None:
    store = FaultyStore()
    customer = Customer(store)
    await customer.post("/cart/add", sku="mug")
    kept = customer.cookie
    for operation, path, form in (
        ("patch", "/cart/add", {"sku": "mug"}),
        ("patch", "/note", {"text": "ring"}),
        ("patch", "/cart/remove", {"sku": "mug"}),
        ("rotate", "/login", {"user": "ann"}),
        ("delete", "/logout", {}),
    ):
        store.fail(operation, raised)
        response = await customer.post(path, **form)
        assert (response.status_code, response.json()["error"]) == (503, error), path
        assert customer.cookie == kept
        store.heal()
    assert (await customer.get("/cart")).json()["cart"] == {"mug": 1}


async def test_a_customer_who_leaves_in_the_middle_is_no_error(store: greenroom.MemoryStore) -> None:
    app = create_app(store, SECRET)
    headers = [(b"host", b"shop"), (b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/cart/add", "headers": headers, "query_string": b""}
    sent: list[Any] = []

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, gone, send)
    assert sent[0]["status"] == 400
