"""What an HTTP port answers, over real sockets."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from greenroom.addresses import parse_address
from greenroom.errors import UsageError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tokens import new_token
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.http import port as port_module
from greenroom_cluster.http import site, visitor
from greenroom_cluster.http.port import HttpPort, HttpSettings
from greenroom_cluster.runtime import judging
from greenroom_cluster.runtime.reloading import reload_all
from greenroom_cluster.tls_options import NodeTlsOptions, ServerTlsOptions
from greenroom_cluster.tokens.files import Tokens
from tests.authority import Authority, Holder
from tests.cluster.http.port import CLUSTER, FakeView, get, open_port, status

pytestmark = pytest.mark.trio


async def test_a_process_is_live_and_ready() -> None:
    async with open_port() as port:
        live, ready = await get(port, "/livez"), await get(port, "/readyz")
    assert (live.status_code, live.text) == (200, "live\n")
    assert (ready.status_code, ready.text) == (200, "ready\n")


async def test_who_does_not_serve_is_live_and_not_ready() -> None:
    async with open_port(FakeView("1 of 2 actors serve")) as port:
        live, ready = await get(port, "/livez"), await get(port, "/readyz")
    assert live.status_code == 200
    assert (ready.status_code, ready.text) == (503, "not ready: 1 of 2 actors serve\n")


@pytest.mark.parametrize("state", ["joining", "alone", "unavailable", "suspended", "same_node", "same_zone"])
async def test_a_cluster_is_ready_once_every_shard_is_whole(state: str) -> None:
    view = FakeView(found=status("full", state))
    async with open_port(view) as port:
        assert (await get(port, "/readyz")).status_code == 200
        assert (await get(port, "/readyz?cluster")).status_code == 503
        view.found = status("full", "full")
        assert (await get(port, "/readyz?cluster")).status_code == 200
        view.found = None
        assert (await get(port, "/readyz?cluster=1")).status_code == 503


async def test_a_look_that_began_before_is_told_to_nobody() -> None:
    """Whoever has just stopped a node must not be told how the cluster was before."""
    view = FakeView()
    async with open_port(view) as port:
        for number in range(1, 4):
            assert (await get(port, "/readyz?cluster")).status_code == 200
            assert view.looks == number


async def test_other_pages_are_not_there() -> None:
    async with open_port() as port:
        assert (await get(port, "/")).status_code == 404
        assert (await get(port, "/livez/")).status_code in {307, 404}
        assert (await get(port, "/../etc/passwd")).status_code == 404


async def test_head_has_no_body_and_post_is_refused() -> None:
    async with open_port() as port:
        head = await get(port, "/livez", method="HEAD")
        post = await get(port, "/livez", method="POST")
    assert (head.status_code, head.content) == (200, b"")
    assert post.status_code == 405


async def test_answers_are_kept_from_other_pages_and_caches() -> None:
    async with open_port() as port:
        headers = (await get(port, "/livez")).headers
        strange = await get(port, "/livez", host="evil.example")
        caused = await get(port, "/readyz", sec_fetch_site="cross-site")
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in headers
    assert (strange.status_code, caused.status_code) == (421, 403)
    assert strange.headers["x-content-type-options"] == "nosniff"


# --- who is shown what -----------------------------------------------------------------------------------


def secret(folder: Path, **options: Any) -> LoopbackSecrets:
    found = LoopbackSecrets(CLUSTER, folder / "secret", **options)
    found.make()
    return found


async def test_the_state_is_shown_to_who_has_the_token_of_the_secret(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        shown = await get(port, "/status.json", authorization=f"Bearer {keys.http_token()}")
        none, wrong = (
            await get(port, "/status.json"),
            await get(port, "/status.json", authorization="Bearer x"),
        )
        assert (await get(port, "/livez")).status_code == (await get(port, "/readyz")).status_code == 200
    assert shown.status_code == 200
    assert shown.headers["content-type"] == "application/json"
    assert shown.json()["states"]["full"] == 2
    assert (none.status_code, wrong.status_code) == (401, 403)
    assert none.headers["www-authenticate"].startswith("Bearer")
    assert "full" not in none.text + wrong.text


async def test_metrics_are_shown_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    async with open_port(keys=keys) as port:
        assert (await get(port, "/metrics")).status_code == 401
        shown = {"authorization": f"Bearer {keys.http_token()}"}
        newer = await get(port, "/metrics", accept="application/openmetrics-text; version=1.0.0", **shown)
        older = await get(port, "/metrics", **shown)
    assert newer.headers["content-type"].startswith("application/openmetrics-text")
    assert newer.text.endswith("# EOF\n")
    assert older.headers["content-type"].startswith("text/plain")
    for answer in (newer, older):
        assert 'greenroom_ready{process="n1"} 1.0' in answer.text


async def test_the_secret_itself_is_no_token(tmp_path: Path) -> None:
    keys = secret(tmp_path)
    text = (tmp_path / "secret").read_text().strip()
    assert text not in keys.http_token()
    async with open_port(keys=keys) as port:
        assert (await get(port, "/status.json", authorization=f"Bearer {text}")).status_code == 403
    other = LoopbackSecrets("other", tmp_path / "secret")
    assert other.http_token() != keys.http_token()


async def test_where_no_proof_is_demanded_no_token_is(tmp_path: Path) -> None:
    async with open_port(keys=secret(tmp_path, required=False)) as port:
        assert (await get(port, "/status.json")).status_code == 200
    async with open_port(keys=None) as port:
        assert (await get(port, "/status.json")).status_code == 200


async def test_without_its_secret_a_port_shows_nothing(tmp_path: Path) -> None:
    keys = LoopbackSecrets(CLUSTER, tmp_path / "gone")
    async with open_port(keys=keys) as port:
        answer = await get(port, "/status.json", authorization="Bearer x")
        assert (await get(port, "/livez")).status_code == 200
    assert answer.status_code == 503


async def test_who_guesses_tokens_is_soon_told_to_wait_and_nobody_else(tmp_path: Path) -> None:
    """All users of a host come from one address."""
    keys = secret(tmp_path)
    right = {"authorization": f"Bearer {keys.http_token()}"}
    async with open_port(keys=keys) as port:
        for _ in range(10):
            assert (await get(port, "/status.json", authorization="Bearer no")).status_code == 403
        assert (await get(port, "/status.json", authorization="Bearer no")).status_code == 429
        assert (await get(port, "/status.json", **right)).status_code == 200
        assert (await get(port, "/dashboard")).status_code == 401
        assert (await get(port, "/readyz")).status_code == 200


async def test_a_cluster_that_cannot_be_seen_is_told_so() -> None:
    async with open_port(FakeView(found=None)) as port:
        answer = await get(port, "/status.json")
    assert answer.status_code == 503
    assert answer.json() == {"healthy": False, "error": "no node answers"}


# --- within TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def options(folder: Path, authority: Authority, **more: Any) -> NodeTlsOptions:
    files = authority.issue(f"greenroom://{CLUSTER}/node/n1").files(folder, "n1")
    return NodeTlsOptions(tls_cert=Path(files.cert), tls_key=Path(files.key), tls_ca=Path(files.ca), **more)


def trusting(authority: Authority, folder: Path, holder: Holder | None = None) -> ssl.SSLContext:
    """What a probe, or with a certificate a scraper, connects by."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if holder is not None:
        files = holder.files(folder)
        context.load_cert_chain(files.cert, files.key)
    return context


async def test_a_certificate_decides_within_tls(tmp_path: Path, authority: Authority) -> None:
    async with open_port(tls=options(tmp_path, authority)) as port:
        assert port.url.startswith("https://")
        probe = trusting(authority, tmp_path)
        assert (await get(port, "/livez", context=probe)).status_code == 200
        assert (await get(port, "/readyz", context=probe)).status_code == 200
        assert (await get(port, "/status.json", context=probe)).status_code == 401
        for role, expected in (("observer", 200), ("operator", 200), ("client", 403), ("node", 403)):
            holder = authority.issue(f"greenroom://{CLUSTER}/{role}/x")
            context = trusting(authority, tmp_path, holder)
            assert (await get(port, "/status.json", context=context)).status_code == expected, role


async def test_a_stranger_within_tls_gets_no_answer(tmp_path: Path, authority: Authority) -> None:
    async with open_port(tls=options(tmp_path, authority)) as port:
        stranger = Authority("stranger").issue(f"greenroom://{CLUSTER}/observer/x")
        context = trusting(authority, tmp_path, stranger)
        with pytest.raises(httpx.TransportError):
            await get(port, "/status.json", context=context)
        with pytest.raises(httpx.TransportError):  # plaintext
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(port.url.replace("https", "http") + "/livez")
        assert (await get(port, "/livez", context=trusting(authority, tmp_path))).status_code == 200


async def test_who_was_revoked_is_shown_nothing_more(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even on a connection that is open, until that is ended."""
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 3600.0)
    deny = tmp_path / "denied.txt"
    deny.write_text("")
    tls = options(tmp_path, authority, tls_deny=deny)
    async with open_port(tls=tls) as port:
        observer = authority.issue(f"greenroom://{CLUSTER}/observer/x")
        context = trusting(authority, tmp_path, observer)
        async with httpx.AsyncClient(base_url=port.url, verify=context, trust_env=False) as client:
            assert (await client.get("/status.json")).status_code == 200
            deny.write_text(f"{observer.serial:X}\n")
            reload_all()
            assert (await client.get("/status.json")).status_code == 403
            assert (await client.get("/livez")).status_code == 200


async def test_an_observer_may_show_a_token_within_tls(tmp_path: Path, authority: Authority) -> None:
    token = new_token("t1", lambda count: b"r" * count)
    known = tmp_path / "tokens"
    known.touch(0o600)
    known.write_text(f"t1 {token.digest.hex()} greenroom://{CLUSTER}/observer/grafana 2099-01-01T00:00:00Z\n")
    tls = options(tmp_path, authority, tokens=known)
    tokens = Tokens(known, CLUSTER, lambda text: None)
    async with open_port(tls=tls, tokens=tokens) as port:
        probe = trusting(authority, tmp_path)
        shown = {"authorization": f"Bearer {token.written().decode().strip()}"}
        assert (await get(port, "/status.json", context=probe, **shown)).status_code == 200
        shown = {"authorization": "Bearer gt1.t1." + "A" * 43}
        assert (await get(port, "/status.json", context=probe, **shown)).status_code == 403


# --- bounds ----------------------------------------------------------------------------------------------


async def raw(port: Any) -> trio.SocketStream:
    return await trio.open_tcp_stream(*parse_address(port.url.partition("://")[2]))


async def test_a_head_that_is_too_long_is_refused() -> None:
    async with open_port() as port:
        answer = await get(port, "/livez", x_long="a" * 40_000)
    assert answer.status_code in {400, 431}


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_IDLE_SECONDS", 0.2)
    async with open_port() as port:
        silent, slow = await raw(port), await raw(port)
        await slow.send_all(b"GET /livez HTTP/1.1\r\nHost: loc")
        with trio.fail_after(10):
            assert await silent.receive_some() == b""
            assert b"200" not in await slow.receive_some()


async def test_who_keeps_connections_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "VISITORS_MAX", 4)
    async with open_port() as port:
        held = [await raw(port) for _ in range(12)]
        assert (await get(port, "/livez")).status_code == 200
        with trio.fail_after(10):
            assert await held[0].receive_some() == b""


async def test_who_reads_nothing_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "SEND_SECONDS", 0.2)
    view = FakeView(found=status(*["full"] * 60_000))
    async with open_port(view) as port:
        stream = await raw(port)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.send_all(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(30):
            while len(port._visitors) == 0:
                await trio.lowlevel.checkpoint()
            while len(port._visitors):
                await trio.lowlevel.checkpoint()


async def test_pings_of_http_2_are_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "REQUEST_SECONDS", 0.3)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
    async with open_port() as port:
        stream = await raw(port)
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
        answers = 0
        with trio.fail_after(20):
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some(64):
                    answers += 1
                    await stream.send_all(ping)
            while len(port._visitors):
                await trio.lowlevel.checkpoint()
        assert answers > 2


async def test_a_page_may_take_longer_than_a_request_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "REQUEST_SECONDS", 0.3)
    view, begun, may_end = FakeView(), trio.Event(), trio.Event()

    async def look() -> ClusterStatus:
        begun.set()
        await may_end.wait()
        return status("full")

    view.look = look  # type: ignore[method-assign]
    answers: list[int] = []
    async with open_port(view) as port, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append((await get(port, "/readyz?cluster")).status_code)

        nursery.start_soon(ask)
        await begun.wait()
        began = trio.current_time()
        while trio.current_time() < began + 2 * visitor.REQUEST_SECONDS:
            assert (await get(port, "/livez")).status_code == 200
        may_end.set()
    assert answers == [200]


async def test_a_websocket_is_refused() -> None:
    async with open_port() as port:
        answer = await get(
            port,
            "/livez",
            connection="Upgrade",
            upgrade="websocket",
            sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAA==",
            sec_websocket_version="13",
        )
    assert answer.status_code == 403


async def test_noise_ends_its_own_connection_alone() -> None:
    async with open_port() as port:
        upgrade = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff"
        for noise in (b"\0" * 100, b"\x16\x03\x01" + b"x" * 50, b"GET\r\n\r\n", upgrade):
            stream = await raw(port)
            await stream.send_all(noise)
            await stream.aclose()
        assert (await get(port, "/livez")).status_code == 200


async def test_a_page_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    view = FakeView()
    view.objection = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    async with open_port(view) as port:
        assert (await get(port, "/readyz")).status_code == 500
        assert (await get(port, "/livez")).status_code == 200


# --- where it may be -------------------------------------------------------------------------------------


async def test_plaintext_beyond_loopback_is_refused_at_the_bind() -> None:
    settings = HttpSettings(CLUSTER, "0.0.0.0:0", ServerTlsOptions())
    with pytest.raises(UsageError, match=r"--http .*beyond loopback.*--tls-cert"):
        HttpPort(settings, FakeView())


async def test_a_port_that_is_taken_is_named_with_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = HttpSettings(CLUSTER, f"127.0.0.1:{taken.getsockname()[1]}", ServerTlsOptions())
        with pytest.raises(UsageError, match="--http"):
            HttpPort(settings, FakeView())


async def test_without_its_libraries_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "_PACKAGES", {"no_such_package": "no-such"})
    with pytest.raises(UsageError, match=r"needs no-such.*the extra `http`"):
        port_module.check_installed()
