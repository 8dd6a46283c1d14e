"""Tokens at a listener of TLS: who is served by one, for how long, and what all others are told."""

import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.framing import encode_greeting
from greenroom.identities import Identity, parse_identity
from greenroom.tls.channel import Channel
from greenroom.tls.credentials import BearerCredentials, BearerFiles, Credentials, TlsFiles
from greenroom.tls.demands import Demand, node_of
from greenroom.tokens import Token, new_token
from greenroom_cluster.runtime import judging, refusals
from greenroom_cluster.runtime import listener as listener_module
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import Listener, Service
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.proving import Trust, trust_of
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.tokens.entries import line_of
from greenroom_cluster.tokens.failures import FAILURES_MAX
from greenroom_cluster.tokens.files import Tokens, write_text
from greenroom_cluster.tokens.table import Bearer
from tests.authority import Authority
from tests.cluster.runtime.loopback import (
    CLUSTER,
    SERVER,
    client_decoder,
    echo,
    ended,
    get,
    hello,
    listening,
    raw_connect,
    raw_receive,
    request_decoder,
    until,
)

pytestmark = pytest.mark.trio
AUTHORITY = Authority()
NODE = AUTHORITY.issue(f"greenroom://{CLUSTER}/node/n1")
WEB = parse_identity(f"greenroom://{CLUSTER}/client/web?ns=shop")
ROLES = (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_OPERATOR, wire.ROLE_ADMIN)


class Stage:
    """A node's files, and those of who has a token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Credentials(replace(NODE.files(folder, "n1"), optional=True), print)
        self.path = folder / "tokens"
        self.bearers: dict[str, Bearer] = {}
        write_text(self.path, "")
        self.tokens = Tokens(self.path, CLUSTER, pytest.fail)
        self.heard: list[wire.Hello] = []

    def issue(
        self, token_id: str, identity: Identity = WEB, *, seconds: float = 3600.0, **fields: Any
    ) -> Token:
        """Make a token, and enter it."""
        token = new_token(token_id, lambda count: token_id[:1].encode() * count)
        ends_at = int(time.time()) + seconds
        self.bearers[token_id] = Bearer(token_id, token.digest, identity, ends_at, **fields)
        self.write()
        return token

    def write(self) -> None:
        write_text(self.path, "".join(f"{line_of(each)}\n" for each in self.bearers.values()))
        assert self.tokens.reload()

    def trust(self, token: Token, node: str = "n1") -> Trust:
        return Trust(self.credentials(token), node_of(CLUSTER, node))

    def credentials(self, token: Token) -> BearerCredentials:
        path, ca = self.folder / f"{token.id}.token", self.folder / "ca.pem"
        path.touch(0o600)
        path.write_bytes(token.written())
        ca.write_bytes(AUTHORITY.pem)
        return BearerCredentials(BearerFiles(token=str(path), ca=str(ca)), print)

    def services(self) -> dict[str, Service]:
        async def handle(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
            self.heard.append(hello)
            await echo(connection, hello, number)

        return {role: Service(request_decoder, handle) for role in ROLES}

    def listening(self, **settings: Any) -> Any:
        settings = {"credentials": self.node, "tokens": self.tokens, **settings}
        return listening(self.services(), **settings)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(refusals, "_limited_log", LimitedLog(structlog.get_logger(), lines=1000))
    monkeypatch.setattr(judging, "SWEEP_SECONDS", 0.01)
    return Stage(tmp_path)


async def asked(connection: FramedConnection) -> Any:
    connection.speak(client_decoder)
    connection.send([get(1)])
    return await connection.receive()


async def refused(
    listener: Listener, nursery: trio.Nursery, trust: Trust, role: str = wire.ROLE_CLIENT
) -> str:
    with pytest.raises(DialFailedError) as caught:
        await dial(listener.address(), hello(role), nursery, trust=trust)
    return caught.value.code or str(caught.value)


async def test_who_shows_a_token_is_served_as_its_holder(stage: Stage) -> None:
    token = stage.issue("web-1")
    async with stage.listening() as (listener, nursery):
        connection, answer = await dial(listener.address(), hello(), nursery, trust=stage.trust(token))
        assert await asked(connection) == [wire.Missing(1)]
        assert (answer.sender, answer.auth) == (SERVER, b"")
        (served,) = listener._open
        assert served.proven == stage.bearers["web-1"]
        assert served.proven.identity.namespace == "shop"
        (heard,) = stage.heard
        assert heard.auth == b"", "no handler gets the token, to keep it or to show it"
        connection.close()


async def test_all_who_are_refused_are_told_alike_and_our_log_says_why(stage: Stage) -> None:
    stage.issue("gone", revoked=True)
    stage.issue("old", seconds=-1.0)
    stage.issue("web-1")
    attempts = {
        "its token gone is revoked": b"gone",
        "its token old has ended": b"old",
        "its token nobody is unknown": b"nobody",
        "neither a certificate nor a token": b"",
        "is no token": b"x" * 200,
    }
    shown = {
        reason: new_token(name.decode(), lambda count, name=name: name[:1] * count).written().strip()
        if name.isalpha() and len(name) < 10
        else name
        for reason, name in attempts.items()
    }
    shown["the secret of its token web-1 is wrong"] = new_token(
        "web-1", lambda count: b"?" * count
    ).written()[:-1]
    told = set()
    with capture_logs() as logs:
        async with stage.listening() as (listener, _nursery):
            for auth in shown.values():
                told.add(await answer_to(listener, replace(hello(), auth=auth)))
    assert len(told) == 1
    assert b"not-allowed" in told.pop()
    details = [line["detail"] for line in logs if line["event"] == "connection_refused"]
    for detail, reason in zip(details, shown, strict=True):
        assert reason in detail
    for auth in filter(None, shown.values()):
        assert auth[-20:].decode() not in str(logs)


async def answer_to(listener: Listener, greeting: wire.Hello) -> bytes:
    """What a listener says, within TLS, to who shows no certificate and says this."""
    sock = raw_connect(listener)
    with sock:
        channel = await shaken(sock)
        channel.write(memoryview(encode_greeting(greeting)))
        sock.send(channel.take())
        return await received(sock, channel)


def anonymous_channel() -> Channel:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["greenroom/4"])
    return Channel(context, server_side=False)


async def shaken(sock: socket.socket, sent: bytearray | None = None) -> Channel:
    channel = anonymous_channel()
    while not channel.handshake():
        said = channel.take()
        sock.send(said)
        if sent is not None:
            sent += said
        channel.feed(await raw_receive(sock))
    said = channel.take()
    sock.send(said)
    if sent is not None:
        sent += said
    return channel


async def received(sock: socket.socket, channel: Channel) -> bytes:
    """The next plaintext."""
    buffer = bytearray(1 << 16)
    with trio.fail_after(10):
        while not channel.ended:
            if count := channel.read_into(memoryview(buffer)):
                return bytes(buffer[:count])
            channel.feed(await raw_receive(sock))
    return b""


@pytest.mark.parametrize(
    ("uri", "allowed"), [("client/web", wire.ROLE_CLIENT), ("observer/web", wire.ROLE_ADMIN)]
)
async def test_token_allows_the_one_role_that_it_is_for(stage: Stage, uri: str, allowed: str) -> None:
    token = stage.issue("web-1", parse_identity(f"greenroom://{CLUSTER}/{uri}"))
    with capture_logs() as logs:
        async with stage.listening() as (listener, nursery):
            for role in ROLES:
                if role == allowed:
                    connection, _ = await dial(
                        listener.address(), hello(role), nursery, trust=stage.trust(token)
                    )
                    assert await asked(connection) == [wire.Missing(1)]
                    connection.close()
                else:
                    assert await refused(listener, nursery, stage.trust(token), role) == "not-allowed"
    details = [line["detail"] for line in logs if line["event"] == "connection_refused"]
    assert len(details) == len(ROLES) - 1
    assert all(f"the token web-1 of greenroom://{CLUSTER}/{uri} does not allow" in each for each in details)


async def test_certificates_are_demanded_and_judged_as_without_tokens(stage: Stage) -> None:
    """Who shows one needs no token; one that is not trusted is not made good by a token."""
    token = stage.issue("web-1")
    peer = Credentials(AUTHORITY.issue(f"greenroom://{CLUSTER}/node/n2").files(stage.folder, "n2"), print)
    foreign = Authority("stranger").issue(f"greenroom://{CLUSTER}/node/n2", ca=AUTHORITY.pem)
    async with stage.listening() as (listener, nursery):
        trust = Trust(peer, node_of(CLUSTER, "n1"))
        connection, _ = await dial(listener.address(), hello(wire.ROLE_PEER), nursery, trust=trust)
        assert await asked(connection) == [wire.Missing(1)]
        connection.close()
        with raw_connect(listener) as sock:
            channel = Channel(context_of(foreign.files(stage.folder, "foreign")), server_side=False)
            while not channel.handshake():
                sock.send(channel.take())
                channel.feed(await raw_receive(sock))
            channel.write(memoryview(encode_greeting(token.asking(hello()))))
            sock.send(channel.take())
            assert await ended(sock)
        assert len(stage.heard) == 1


def context_of(files: TlsFiles) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["greenroom/4"])
    return context


async def test_listener_without_tokens_takes_none(stage: Stage) -> None:
    token = stage.issue("web-1")
    strict = Credentials(NODE.files(stage.folder, "strict"), print)
    async with stage.listening(credentials=strict, tokens=None) as (listener, nursery):
        assert "asks for a certificate" in await refused(listener, nursery, stage.trust(token))
        assert not stage.heard


@pytest.mark.parametrize("server", ["node/n2", "coordinator/n1", "client/n1"])
async def test_token_is_told_to_nobody_but_the_node_that_is_meant(stage: Stage, server: str) -> None:
    token = stage.issue("web-1")
    holder = AUTHORITY.issue(f"greenroom://{CLUSTER}/{server}", server=True)
    other = Credentials(replace(holder.files(stage.folder, "other"), optional=True), print)
    async with stage.listening(credentials=other) as (listener, nursery):
        assert await refused(listener, nursery, stage.trust(token)) == "not-trusted"
        # A command may ask the coordinator too, but not with a token.
        trust = trust_of(stage.credentials(token), Demand(CLUSTER, ("node", "coordinator"), "n1"))
        assert isinstance(trust, Trust)
        assert await refused(listener, nursery, trust) == "not-trusted"
        assert not stage.heard


async def test_token_in_plaintext_is_refused_and_told_in_our_log(stage: Stage) -> None:
    token = stage.issue("web-1")
    with capture_logs() as logs:
        async with stage.listening(credentials=None, tokens=None) as (listener, _nursery):
            with raw_connect(listener) as sock:
                sock.send(encode_greeting(token.asking(hello())))
                assert b"not-allowed" in await raw_receive(sock)
    assert not stage.heard
    (detail,) = [line["detail"] for line in logs if line["event"] == "connection_refused"]
    assert detail == "its token web-1 came in plaintext: revoke it"


async def test_what_a_connection_carried_is_worth_nothing_on_another(stage: Stage) -> None:
    """Its bytes hold no token that could be read, and a server that gets them again serves nobody."""
    token = stage.issue("web-1")
    sent = bytearray()
    async with stage.listening() as (listener, _nursery):
        with raw_connect(listener) as sock:
            channel = await shaken(sock, sent)
            channel.write(memoryview(encode_greeting(token.asking(hello()))))
            said = channel.take()
            sent += said
            sock.send(said)
            assert SERVER in await received(sock, channel)
        assert len(stage.heard) == 1
        assert token.written()[:-1] not in sent
        with raw_connect(listener) as sock:
            sock.send(sent)
            assert await ended(sock)
        assert len(stage.heard) == 1


@pytest.mark.parametrize("how", ["revoked", "removed", "replaced", "moved to another namespace"])
async def test_connection_of_a_token_that_counts_no_more_ends(stage: Stage, how: str) -> None:
    token, other = stage.issue("web-1"), stage.issue("other")
    async with stage.listening() as (listener, nursery):
        connection, _ = await dial(listener.address(), hello(), nursery, trust=stage.trust(token))
        kept, _ = await dial(listener.address(), hello(), nursery, trust=stage.trust(other))
        assert await asked(connection) == [wire.Missing(1)]
        known = stage.bearers.pop("web-1")
        if how == "revoked":
            stage.bearers["web-1"] = replace(known, revoked=True)
        elif how == "replaced":
            stage.bearers["web-1"] = replace(known, digest=bytes(32))
        elif how == "moved to another namespace":
            stage.bearers["web-1"] = replace(known, identity=replace(WEB, issued_for="mall"))
        stage.write()
        with trio.fail_after(10), pytest.raises(ConnectionEndedError):
            await connection.receive()
        if how != "moved to another namespace":
            assert await refused(listener, nursery, stage.trust(token)) == "not-allowed"
        assert await asked(kept) == [wire.Missing(1)]
        kept.close()


async def test_connection_ends_with_its_token(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end, not half a minute later as with certificates."""
    token = stage.issue("web-1")
    ends_us = int(stage.bearers["web-1"].ends_at) * 1_000_000
    now_us = [ends_us - 1_000_000]
    looks: list[int] = []
    monkeypatch.setattr(listener_module, "wall_us", lambda: now_us[0])
    monkeypatch.setattr(judging, "wall_us", lambda: looks.append(1) or now_us[0])
    async with stage.listening() as (listener, nursery):
        connection, _ = await dial(listener.address(), hello(), nursery, trust=stage.trust(token))
        assert await asked(connection) == [wire.Missing(1)]
        (served,) = listener._open
        await until(lambda: len(looks) > 1)
        assert not served.ended
        now_us[0] = ends_us
        await until(lambda: served.ended)
        assert await refused(listener, nursery, stage.trust(token)) == "not-allowed"
        connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_guesses_keeps_nobody_else_out(stage: Stage, host: str) -> None:
    """All users of a host come from one address, and so do the actors and apps there."""
    token = stage.issue("web-1")
    guess = replace(hello(), auth=new_token("web-1", lambda count: b"?" * count).written().strip())
    web = AUTHORITY.issue(f"greenroom://{CLUSTER}/client/web")
    certified = Credentials(web.files(stage.folder, "web"), print)
    with capture_logs() as logs:
        async with stage.listening(host=host) as (listener, nursery):
            for _ in range(FAILURES_MAX + 2):
                assert b"not-allowed" in await answer_to(listener, guess)
            for trust in (stage.trust(token), Trust(certified, node_of(CLUSTER, "n1"))):
                connection, _ = await dial(listener.address(), hello(), nursery, trust=trust)
                assert await asked(connection) == [wire.Missing(1)]
                connection.close()
    reasons = [line["reason"] for line in logs if line["event"] == "connection_refused"]
    assert reasons == ["not-allowed"] * FAILURES_MAX + ["too-many-failures"] * 2


async def test_who_shows_a_token_that_has_ended_is_not_taken_for_a_guesser(stage: Stage) -> None:
    """Else one app that was forgotten would shut out all others of its host."""
    old, token = stage.issue("old", seconds=-1.0), stage.issue("web-1")
    async with stage.listening() as (listener, nursery):
        for _ in range(FAILURES_MAX + 1):
            assert await refused(listener, nursery, stage.trust(old)) == "not-allowed"
        connection, _ = await dial(listener.address(), hello(), nursery, trust=stage.trust(token))
        assert await asked(connection) == [wire.Missing(1)]
        connection.close()
