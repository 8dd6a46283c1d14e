"""The dashboard at an HTTP port: who is shown it, by what, and how its stream begins, goes on and ends."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from greenroom.addresses import parse_address
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.http import dashboard, live, looks, tickets, visitor
from greenroom_cluster.http.port import HttpPort
from greenroom_cluster.runtime import judging
from greenroom_cluster.runtime.reloading import reload_all
from tests.authority import Authority
from tests.cluster.http.port import CLUSTER, FakeView, get, open_port, status
from tests.cluster.http.test_port import options, secret, trusting

pytestmark = pytest.mark.trio

PAGES = ("/dashboard", "/dashboard/board.js", "/dashboard/board.css", "/dashboard/sign_in.js")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have looks follow each other at once."""
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(looks, "_PAUSE_SECONDS", 0.0)


@asynccontextmanager
async def events(
    port: HttpPort, context: ssl.SSLContext | None = None, **headers: str
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Watch the dashboard; yields what each event holds."""
    verify: Any = context if context is not None else True
    async with (
        httpx.AsyncClient(base_url=port.url, verify=verify, trust_env=False) as client,
        client.stream("GET", "/dashboard/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"

        async def each() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield msgspec.json.decode(line.removeprefix("data: "))

        yield each()


async def cookie_for(port: HttpPort, keys: LoopbackSecrets) -> str:
    """Show the token, and return the cookie that was set."""
    answer = await get(port, "/dashboard/ticket", authorization=f"Bearer {keys.http_token()}")
    assert answer.status_code == 204
    return answer.headers["set-cookie"].partition(";")[0]


# --- the pages ----------------------------------------------------------------------------------------------


async def test_pages_allow_nothing_but_what_is_theirs() -> None:
    async with open_port() as port:
        headers = (await get(port, "/dashboard")).headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


async def test_pages_name_no_other_origin_and_hold_no_script_or_style() -> None:
    folder = Path(dashboard.__file__).parent / "pages"
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert {"board.html", "board.js", "board.css", "sign_in.html"} <= set(found)
    for name, text in found.items():
        outside = text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in outside, name
        assert not any(word in text for word in ("innerHTML", "outerHTML", "eval(", "insertAdjacent")), name
        if name.endswith(".html"):
            assert not any(word in text for word in ("style=", "<style", "onclick", "<script>")), name


async def test_what_is_no_page_is_not_there() -> None:
    async with open_port() as port:
        for path in (
            "/dashboard/board.html",
            "/dashboard/../site.py",
            "/dashboard/none.js",
            "/dashboard/%2e",
        ):
            assert (await get(port, path)).status_code == 404, path
        assert (await get(port, "/dashboard/events", method="HEAD")).content == b""


@pytest.mark.parametrize("path", [*PAGES, "/dashboard/events", "/dashboard/ticket", "/dashboard/sign-out"])
async def test_rules_for_hosts_and_other_origins_hold(path: str) -> None:
    async with open_port() as port:
        assert (await get(port, path, host="evil.example")).status_code == 421
        assert (await get(port, path, sec_fetch_site="cross-site")).status_code == 403
        assert (await get(port, path, sec_fetch_site="same-site")).status_code == 403
        assert (await get(port, path, origin="http://127.0.0.1:1")).status_code == 403
        assert (await get(port, path, method="POST")).status_code == 405


# --- who is shown it ----------------------------------------------------------------------------------------


async def test_a_browser_without_a_ticket_is_asked_for_a_token(tmp_path: Path) -> None:
    async with open_port(keys=secret(tmp_path)) as port:
        page, stream = await get(port, "/dashboard"), await get(port, "/dashboard/events")
        script = await get(port, "/dashboard/sign_in.js")
    assert (page.status_code, stream.status_code, script.status_code) == (401, 401, 200)
    assert "greenroom http-token" in page.text
    assert CLUSTER not in page.text + stream.text


async def test_a_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        answer = await get(port, "/dashboard/ticket", authorization=f"Bearer {keys.http_token()}")
        cookie = answer.headers["set-cookie"]
        number = parse_address(port.url.partition("//")[2])[1]
        name, _, ticket = cookie.partition(";")[0].partition("=")
        page = await get(port, "/dashboard", cookie=f"{name}={ticket}")
        async with events(port, cookie=f"{name}={ticket}") as told:
            first = await anext(told)
    assert cookie == f"{name}={ticket}; Path=/dashboard; HttpOnly; SameSite=Strict"
    assert name == f"greenroom_dashboard_{number}"
    assert keys.http_token() not in cookie
    assert page.status_code == 200
    assert 'id="shards"' in page.text
    assert first["parts"]["cluster"]["name"] == CLUSTER


async def test_a_ticket_opens_the_dashboard_alone(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        cookie = await cookie_for(port, keys)
        for path in ("/status.json", "/metrics", "/dashboard/ticket"):
            assert (await get(port, path, cookie=cookie)).status_code == 401, path


async def test_a_ticket_is_of_no_use_elsewhere_and_no_guess(tmp_path: Path) -> None:
    """A browser that comes with a ticket of a former process is not kept out for that."""
    keys = secret(tmp_path)
    async with open_port(keys=keys) as first, open_port(keys=keys) as second:
        ticket = (await cookie_for(first, keys)).partition("=")[2]
        name = (await cookie_for(second, keys)).partition("=")[0]
        for _ in range(20):
            assert (await get(second, "/dashboard", cookie=f"{name}={ticket}")).status_code == 401
        assert (await get(second, "/dashboard", cookie=await cookie_for(second, keys))).status_code == 200


async def test_a_wrong_token_gets_no_ticket_and_is_a_guess(tmp_path: Path) -> None:
    async with open_port(keys=secret(tmp_path)) as port:
        for _ in range(10):
            answer = await get(port, "/dashboard/ticket", authorization="Bearer x")
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        assert (await get(port, "/dashboard/ticket", authorization="Bearer x")).status_code == 429


async def test_a_ticket_ends_with_its_token(tmp_path: Path, quick: None) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        cookie = await cookie_for(port, keys)
        async with events(port, cookie=cookie) as told:
            await anext(told)
            (tmp_path / "secret").unlink()
            LoopbackSecrets(CLUSTER, tmp_path / "secret").make()
            with trio.fail_after(10):
                async for _ in told:
                    pass
        assert (await get(port, "/dashboard", cookie=cookie)).status_code == 401


async def test_tickets_of_a_token_that_was_replaced_are_no_guesses(tmp_path: Path) -> None:
    """However many browsers of a host come with one, who has the new token is served there."""
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        cookies = [await cookie_for(port, keys) for _ in range(20)]
        (tmp_path / "secret").unlink()
        (renewed := LoopbackSecrets(CLUSTER, tmp_path / "secret")).make()
        for cookie in cookies:
            assert (await get(port, "/dashboard", cookie=cookie)).status_code == 401
        assert (await get(port, "/dashboard", cookie=await cookie_for(port, renewed))).status_code == 200


async def test_a_browser_signs_out_and_its_other_pages_end(tmp_path: Path, quick: None) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        cookie, other = await cookie_for(port, keys), await cookie_for(port, keys)
        assert 'id="sign-out" type="button">' in (await get(port, "/dashboard", cookie=cookie)).text
        async with events(port, cookie=cookie) as told:
            await anext(told)
            answer = await get(port, "/dashboard/sign-out", cookie=cookie, x_greenroom_page="board")
            with trio.fail_after(10):
                async for _ in told:
                    pass
        again = await get(port, "/dashboard/sign-out", cookie=cookie, x_greenroom_page="board")
        left = [(await get(port, "/dashboard", cookie=each)).status_code for each in (cookie, other)]
    name = cookie.partition("=")[0]
    assert (answer.status_code, again.status_code, left) == (204, 204, [401, 200])
    assert answer.headers["set-cookie"] == f"{name}=; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age=0"


async def test_a_link_signs_nobody_out(tmp_path: Path) -> None:
    """A browser follows it with the cookie, and without the header that the page sends."""
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        cookie = await cookie_for(port, keys)
        refused = await get(port, "/dashboard/sign-out", cookie=cookie)
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
        assert (await get(port, "/dashboard", cookie=cookie)).status_code == 200


async def test_who_has_no_ticket_is_not_offered_to_sign_out(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        page = await get(port, "/dashboard", authorization=f"Bearer {keys.http_token()}")
    assert 'id="sign-out" type="button" hidden>' in page.text


async def test_where_no_proof_is_demanded_the_dashboard_is_open(tmp_path: Path) -> None:
    async with open_port(keys=secret(tmp_path, required=False)) as port:
        assert 'id="shards"' in (await get(port, "/dashboard")).text


async def test_within_tls_a_certificate_opens_it_and_cookies_are_secure(
    tmp_path: Path, authority: Authority
) -> None:
    holder = authority.issue(f"greenroom://{CLUSTER}/operator/eva")
    async with open_port(tls=options(tmp_path, authority)) as port:
        stranger = await get(port, "/dashboard", context=trusting(authority, tmp_path))
        operator = trusting(authority, tmp_path, holder)
        page = await get(port, "/dashboard", context=operator)
        ticket = await get(port, "/dashboard/ticket", context=operator)
    assert (stranger.status_code, page.status_code) == (401, 200)
    assert ticket.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("how", ["revoked", "its authority is dropped"])
async def test_a_stream_ends_with_its_certificate(
    how: str, tmp_path: Path, authority: Authority, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    former = Authority("former")
    (deny := tmp_path / "denied.txt").touch()
    tls = options(tmp_path, authority, tls_deny=deny)
    assert tls.tls_ca is not None
    tls.tls_ca.write_bytes(authority.pem + former.pem)
    staying, leaving = (issuer.issue(f"greenroom://{CLUSTER}/operator/eva") for issuer in (authority, former))
    async with (
        open_port(tls=tls) as port,
        events(port, trusting(authority, tmp_path, staying)) as others,
        events(port, trusting(authority, tmp_path, leaving)) as told,
    ):
        await anext(told)
        if how == "revoked":
            deny.write_text(f"{leaving.serial:X}\n")
        else:
            tls.tls_ca.write_bytes(authority.pem)
        reload_all()
        with trio.fail_after(10), suppress(httpx.TransportError):
            async for _ in told:
                pass
        for _ in range(20):
            await anext(others)


async def test_tickets_are_bounded_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    held = tickets.Tickets()
    issued = [held.issue(f"Bearer {number}") for number in range(tickets.TICKETS_MAX + 1)]
    assert held.authorization(issued[0]) == ""
    assert held.authorization(issued[1]) == "Bearer 1"
    assert len(set(issued)) == len(issued)
    monkeypatch.setattr(tickets, "TICKET_SECONDS", 0.0)
    assert held.authorization(held.issue("Bearer x")) == ""
    assert "Bearer" not in repr(held._issued)


@pytest.mark.parametrize("header", ["", "a", "a=b", "=", "greenroom_dashboard_8=x", '"', "a=b; \x00"])
async def test_a_cookie_header_without_a_ticket_holds_none(header: str) -> None:
    assert tickets.ticket_in(header, 7) == ""


@pytest.mark.parametrize(
    "header",
    [
        "greenroom_dashboard_7=t",
        "a=b;greenroom_dashboard_7=t;c",
        'theirs={"theme": "dark"}; greenroom_dashboard_7=t',
        "theirs; greenroom_dashboard_7=t",
        "theirs[0]=a b; greenroom_dashboard_7=t",
        "path=/; greenroom_dashboard_7=t",
        'greenroom_dashboard_7=t; expires=1, 2; "',
        "\xfc=\xfc; greenroom_dashboard_7=t",
        "xgreenroom_dashboard_7=x; greenroom_dashboard_70=x; greenroom_dashboard_7=t",
    ],
)
async def test_a_ticket_is_found_whatever_other_apps_of_the_host_keep(header: str) -> None:
    assert tickets.ticket_in(header, 7) == "t"


# --- the stream ---------------------------------------------------------------------------------------------


async def test_a_stream_begins_with_all_and_goes_on_with_what_changes(quick: None) -> None:
    view = FakeView(found=status("full", "full"))
    async with open_port(view) as port, events(port) as told:
        first = await anext(told)
        assert {"shard 0", "shard 1", "advice", "nodes"} <= set(first["parts"])
        view.found = status("full", "alone")
        with trio.fail_after(10):
            async for look in told:
                if look["parts"]:
                    break
    assert "shard 1" in look["parts"]
    assert "shard 0" not in look["parts"]
    assert look["parts"]["transitions"][0]["what"].startswith("shard 1")


async def test_a_cluster_that_cannot_be_seen_is_said_so(quick: None) -> None:
    view = FakeView()
    async with open_port(view) as port, events(port) as told:
        await anext(told)
        view.found = None
        with trio.fail_after(10):
            async for look in told:
                if look["error"]:
                    break
        assert look["error"] == "no node answers"
        view.found = status("full")
        with trio.fail_after(10):
            async for look in told:
                if not look["error"]:
                    break


async def test_viewers_share_looks_and_without_one_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.3)
    view = FakeView()
    async with open_port(view) as port:
        assert (await get(port, "/dashboard")).status_code == 200
        assert view.looks == 0

        async def watch() -> None:
            async with events(port) as told:
                for _ in range(3):
                    await anext(told)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(watch)
        assert 3 <= view.looks <= 5
        before = view.looks
        await trio.testing.wait_all_tasks_blocked(2 * live.INTERVAL_SECONDS)
        assert view.looks == before


async def test_one_viewer_too_many_is_refused(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setattr(dashboard, "VIEWERS_MAX", 1)
    async with open_port() as port:
        async with events(port) as told:
            await anext(told)
            assert (await get(port, "/dashboard/events")).status_code == 503
            assert (await get(port, "/livez")).status_code == 200
        with trio.fail_after(10):
            while (await _status_of_stream(port)) == 503:
                await trio.testing.wait_all_tasks_blocked()


async def _status_of_stream(port: HttpPort) -> int:
    async with (
        httpx.AsyncClient(base_url=port.url, trust_env=False) as client,
        client.stream("GET", "/dashboard/events") as answer,
    ):
        return answer.status_code


async def test_a_viewer_that_reads_nothing_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    """Neither other viewers nor, later, the end of the port; and it is let go itself."""
    monkeypatch.setattr(visitor, "SEND_SECONDS", 0.5)
    view = FakeView(found=status(*["full"] * 256))
    flip = [status(*["full"] * 256), status(*["alone"] * 256)]
    async with open_port(view) as port:
        deaf = await _open_deaf(port)
        with deaf, trio.fail_after(20):
            async with events(port) as told:
                for number in range(200):
                    view.found = flip[number % 2]
                    await anext(told)
            await _until_ended(deaf)


async def test_the_port_ends_although_a_viewer_reads_nothing(quick: None) -> None:
    view = FakeView(found=status(*["full"] * 256))
    flip = [status(*["full"] * 256), status(*["alone"] * 256)]
    with trio.fail_after(20):
        async with open_port(view) as port:
            deaf = await _open_deaf(port)
            async with events(port) as told:
                for number in range(200):
                    view.found = flip[number % 2]
                    await anext(told)
            began = trio.current_time()
    assert trio.current_time() - began < visitor.SEND_SECONDS / 2
    deaf.close()


async def _open_deaf(port: HttpPort) -> socket.socket:
    """Ask for the stream, and read nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(parse_address(port.url.partition("//")[2]))
    sock.sendall(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock


async def _until_ended(sock: socket.socket) -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup()))
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
