"""TLS at a listener: handshakes, strangers, and what is delivered within."""

import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.framing import encode_frames, encode_greeting
from greenroom.tls.credentials import LOOK_SECONDS, Credentials, TlsFiles
from greenroom.tls.demands import Demand, node_of
from greenroom.tls.sockets import TlsSocket
from greenroom_cluster.runtime import judging, proving, refusals
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import Delivery
from greenroom_cluster.runtime.dialing import DialFailedError, dial, stay_connected
from greenroom_cluster.runtime.listener import Service
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.proving import Crowd, Trust, shake_hands
from greenroom_cluster.runtime.reading import ConnectionEndedError
from tests.authority import Authority
from tests.cluster.runtime.loopback import (
    CLUSTER,
    client_decoder,
    ended,
    get,
    hello,
    listening,
    raw_connect,
    request_decoder,
    until,
)

pytestmark = pytest.mark.trio
AUTHORITY = Authority()
NODE = AUTHORITY.issue(f"greenroom://{CLUSTER}/node/n1")
CLIENT_URI = f"greenroom://{CLUSTER}/client/web"
CLIENT = AUTHORITY.issue(CLIENT_URI)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    (tmp_path / "deny").write_text("")
    return msgspec.structs.replace(NODE.files(tmp_path, "n1"), deny=str(tmp_path / "deny"))


@pytest.fixture
def node(files: TlsFiles) -> Credentials:
    return Credentials(files, print)


@pytest.fixture
def client(tmp_path: Path) -> Credentials:
    return Credentials(CLIENT.files(tmp_path, "web"), print)


def revoke(files: TlsFiles, serial: int) -> None:
    Path(files.deny).write_text(f"{serial:x}\n")


def trust(credentials: Credentials, node: str = "n1") -> Trust:
    return Trust(credentials, node_of(CLUSTER, node))


async def test_messages_cross_in_both_directions(node: Credentials, client: Credentials) -> None:
    async with listening(credentials=node) as (listener, nursery):
        connection, _ = await dial(listener.address(), hello(), nursery, trust=trust(client))
        connection.speak(client_decoder)
        connection.send([get(number) for number in range(1, 3000)])
        answers: list[Any] = []
        while len(answers) < 2999:
            answers += await connection.receive()
        assert [answer.request_id for answer in answers] == list(range(1, 3000))
        (served,) = listener._open
        assert served.proven is not None
        assert served.proven.identity.name == "web"
        connection.close()


async def test_requests_right_behind_a_hello_are_served(node: Credentials, client: Credentials) -> None:
    """They are decrypted together with the hello, and no event of the socket tells of them any more."""
    poller = Poller()

    async def serve(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        def handle(requests: list[Any]) -> None:
            connection.send([wire.Missing(request.request_id) for request in requests])

        await Delivery(connection, poller, handle, patient=True).run()

    service = {wire.ROLE_CLIENT: Service(request_decoder, serve)}
    async with listening(service, credentials=node) as (listener, nursery):
        nursery.start_soon(poller.run)
        sock = socket.create_connection(("127.0.0.1", listener.port))
        sock.settimeout(0)
        tls = TlsSocket(sock, client.current().client, server_side=False)
        await shake_hands(tls)
        requests = [get(number) for number in range(1, 400)]
        tls.send(encode_greeting(hello()) + encode_frames(requests))
        buffer, received = bytearray(1 << 17), bytearray()
        wanted = len(encode_frames([wire.Missing(number) for number in range(1, 400)]))
        with trio.fail_after(10):
            while len(received) < wanted:
                await trio.lowlevel.wait_readable(sock)
                try:
                    received += buffer[: tls.recv_into(buffer)]
                except BlockingIOError:
                    continue
        tls.close()
    poller.close()


async def test_who_is_not_meant_is_not_spoken_to(node: Credentials, client: Credentials) -> None:
    async with listening(credentials=node) as (listener, nursery):
        for demand in (node_of(CLUSTER, "n2"), node_of("mall"), Demand(CLUSTER, ("coordinator",))):
            with pytest.raises(DialFailedError, match=r"is not trusted: .* must answer here"):
                await dial(listener.address(), hello(), nursery, trust=Trust(client, demand))
        assert not listener._open


async def test_plaintext_is_told_that_only_tls_is_spoken(node: Credentials) -> None:
    async with listening(credentials=node) as (listener, nursery):
        with pytest.raises(DialFailedError, match="only TLS is spoken here") as caught:
            await dial(listener.address(), hello(), nursery)
        assert caught.value.code == "tls-required"


async def test_log_says_why_somebody_is_refused(
    node: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_limited_log", LimitedLog(structlog.get_logger()))
    other = Authority("other")
    stranger = Credentials(other.issue(CLIENT_URI, ca=other.pem + AUTHORITY.pem).files(tmp_path), print)
    with capture_logs() as logs:
        async with listening(credentials=node) as (listener, nursery):
            for trust_ in (None, trust(stranger)):
                with pytest.raises(DialFailedError):
                    await dial(listener.address(), hello(), nursery, trust=trust_)
            await until(lambda: len(refused_in(logs)) == 2)
    plaintext, unknown = refused_in(logs)
    assert plaintext["reason"] == "tls-required"
    assert "greenrooms://" in plaintext["detail"]
    assert unknown["reason"] == "tls"
    assert "no CA in our file of CAs" in unknown["detail"]


def refused_in(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] == "connection_refused"]


async def test_tls_at_a_plaintext_port_fails_with_a_reason(client: Credentials) -> None:
    async with listening() as (listener, nursery):
        with pytest.raises(DialFailedError, match="has it TLS"):
            await dial(listener.address(), hello(), nursery, trust=trust(client))


async def test_half_a_handshake_ends_in_time(node: Credentials) -> None:
    async with listening(credentials=node, hello_seconds=0.2) as (listener, _nursery):
        with raw_connect(listener) as silent:
            silent.send(b"\x16\x03\x01\x02\x00")
            assert await ended(silent)
        assert listener._gate is not None
        await until(lambda: len(listener._gate) == 0)  # type: ignore[arg-type]
        assert not listener._open


async def test_strangers_cannot_fill_the_gate(
    node: Credentials, client: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of them makes room, and whoever has a certificate is served meanwhile."""
    monkeypatch.setattr(proving, "UNPROVEN_MAX", 8)
    monkeypatch.setattr(proving, "HANDSHAKES_MAX", 4)
    async with listening(credentials=node, connections_max=4) as (listener, nursery):
        silent = []
        for number in range(40):
            sock = socket.create_connection(("127.0.0.1", listener.port))
            if number % 2:
                sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
            silent.append(sock)
            await trio.lowlevel.checkpoint()
        connection, _ = await dial(listener.address(), hello(), nursery, trust=trust(client))
        connection.speak(client_decoder)
        connection.send([get(1)])
        assert await connection.receive() == [wire.Missing(1)]
        assert listener._gate is not None
        assert len(listener._gate) <= 8
        for sock in silent:
            sock.close()
        connection.close()


async def test_crowd_ends_its_oldest() -> None:
    class Member:
        ended = False

        def abort(self, reason: str = "") -> None:
            self.ended = True

    members = [Member() for _ in range(5)]
    crowd = Crowd(3, "wait")
    for member in members[:4]:
        crowd.enter(member)
    assert [member.ended for member in members] == [True, False, False, False, False]
    crowd.leave(members[1])
    crowd.leave(members[1])
    crowd.enter(members[4])
    assert [member.ended for member in members] == [True, False, False, False, False]
    assert len(crowd) == 3


async def test_revoked_certificate_ends_its_open_connections(
    files: TlsFiles, client: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    node = Credentials(files, print, clock=lambda: now[0])
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    async with listening(credentials=node) as (listener, nursery):
        connection, _ = await dial(listener.address(), hello(), nursery, trust=trust(client))
        connection.speak(client_decoder)
        connection.send([get(1)])
        assert await connection.receive() == [wire.Missing(1)]
        revoke(files, CLIENT.serial)
        now[0] += LOOK_SECONDS
        with trio.fail_after(10), pytest.raises(ConnectionEndedError):
            await connection.receive()
        with pytest.raises(DialFailedError, match="not-allowed"):
            await dial(listener.address(), hello(), nursery, trust=trust(client))


async def test_connection_ends_with_the_certificate(
    node: Credentials, client: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    async with listening(credentials=node) as (listener, nursery):
        connection, _ = await dial(listener.address(), hello(), nursery, trust=trust(client))
        (served,) = listener._open
        assert served.proven is not None
        ends_us = int(served.proven.ends_at * 1e6)
        assert ends_us / 1e6 > time.time()
        looks: list[int] = []
        monkeypatch.setattr(judging, "wall_us", lambda: looks.append(1) or ends_us - 1)
        await until(lambda: len(looks) > 2)
        assert not served.ended
        monkeypatch.setattr(judging, "wall_us", lambda: ends_us + 60_000_000)
        await until(lambda: served.ended)
        connection.close()


@pytest.mark.parametrize("side", ["listener", "dialler"])
async def test_dropped_authority_ends_what_it_has_certified(
    tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side judges the other: with both authorities trusted nothing ends, with one of them it does."""
    former, newer = Authority("former"), Authority("newer")
    both = former.pem + newer.pem
    uris = {"listener": f"greenroom://{CLUSTER}/node/n1", "dialler": f"greenroom://{CLUSTER}/client/web"}
    (judged,) = set(uris) - {side}
    holders = {
        name: Credentials(
            (newer if name == side else former).issue(uri, ca=both).files(tmp_path, name), print
        )
        for name, uri in uris.items()
    }
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    user = Kept()
    async with listening(credentials=holders["listener"]) as (listener, nursery):
        keep = partial(stay_connected, what="peer", trust=trust(holders["dialler"]))
        nursery.start_soon(keep, listener.address(), hello(), nursery, user)
        await until(lambda: user.begun == 1)
        assert holders[side].reload()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert (user.begun, user.ended) == (1, 0)
        (tmp_path / f"{side}.ca.pem").write_bytes(newer.pem)
        assert holders[side].reload()
        await until(lambda: user.ended == 1)
        newer.issue(uris[judged], ca=both).files(tmp_path, judged)
        assert holders[judged].reload()
        await until(lambda: user.begun == 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("reason", ["our certificate was renewed", "trusted no more"])
async def test_another_connection_takes_the_place_of_a_link(
    tmp_path: Path, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dialled before: whoever uses the link is never without one, and nobody is refused."""
    former, newer = Authority("former"), Authority("newer")
    both, node, web = former.pem + newer.pem, f"greenroom://{CLUSTER}/node/n1", CLIENT_URI
    server = Credentials(former.issue(node, ca=both).files(tmp_path, "n1"), print)
    client = Credentials(newer.issue(web, ca=both).files(tmp_path, "web"), print)
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    user = Kept()
    with capture_logs() as logs:
        async with listening(credentials=server) as (listener, nursery):
            keep = partial(stay_connected, what="peer", trust=trust(client))
            nursery.start_soon(keep, listener.address(), hello(), nursery, user)
            await until(lambda: user.begun == 1)
            if reason == "trusted no more":
                newer.issue(node, ca=both).files(tmp_path, "n1")
                assert server.reload()
                (tmp_path / "web.ca.pem").write_bytes(newer.pem)
            else:
                newer.issue(web, ca=both).files(tmp_path, "web")
            assert client.reload()
            await until(lambda: user.begun == 2)
            await until(lambda: len(listener._open) == 1)
            nursery.cancel_scope.cancel()
    assert (user.failures, user.begun, user.ended) == ([], 2, 1)
    assert [line["reason"] for line in logs if line["event"] == "link_renewed"] in (
        [reason],
        [f"the authority of its certificate is {reason}"],
    )
    assert refused_in(logs) == []


async def test_a_link_goes_on_while_nothing_can_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the other side does not trust our new authority yet, because a step was forgotten there."""
    former, newer = Authority("former"), Authority("newer")
    both = former.pem + newer.pem
    server = Credentials(former.issue(f"greenroom://{CLUSTER}/node/n1").files(tmp_path, "n1"), print)
    client = Credentials(former.issue(CLIENT_URI, ca=both).files(tmp_path, "web"), print)
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    user = Kept()
    with capture_logs() as logs:
        async with listening(credentials=server) as (listener, nursery):
            keep = partial(stay_connected, what="peer", trust=trust(client))
            nursery.start_soon(keep, listener.address(), hello(), nursery, user)
            await until(lambda: user.begun == 1)
            newer.issue(CLIENT_URI, ca=both).files(tmp_path, "web")
            assert client.reload()
            await until(lambda: any(line["event"] == "link_not_renewed" for line in logs))
            assert (user.begun, user.ended) == (1, 0)
            (tmp_path / "n1.ca.pem").write_bytes(both)
            assert server.reload()
            await until(lambda: user.begun == 2)
            nursery.cancel_scope.cancel()
    assert user.failures == []


class Kept:
    """The user of a connection that is kept open; it only counts."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.failures: list[str] = []

    def begin(self, connection: FramedConnection, address: str) -> None:
        connection.speak(client_decoder)
        self.begun += 1

    async def use(self, connection: FramedConnection) -> None:
        await connection.receive()

    def end(self) -> None:
        self.ended += 1

    def failed(self, reason: str, code: str) -> None:
        self.failures.append(reason)
