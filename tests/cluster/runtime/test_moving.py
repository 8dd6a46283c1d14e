"""One port for TLS and plaintext, while a cluster is moved from one to the other."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.credentials import Credentials
from greenroom.tls.demands import node_of
from greenroom_cluster.networks import networks_of
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import Service
from greenroom_cluster.runtime.moving import WARNING_SECONDS, Mixed, Plain
from greenroom_cluster.runtime.proving import Safeguard, Trust, keys_of, trust_of
from greenroom_cluster.tls_options import ServerTlsOptions
from tests.authority import Authority
from tests.cluster.runtime.loopback import (
    CLUSTER,
    client_decoder,
    echo,
    get,
    hello,
    listening,
    request_decoder,
    until,
)

pytestmark = pytest.mark.trio
AUTHORITY = Authority()
NODE = AUTHORITY.issue(f"greenroom://{CLUSTER}/node/n1")
PEER = AUTHORITY.issue(f"greenroom://{CLUSTER}/node/n2")
CLIENT = AUTHORITY.issue(f"greenroom://{CLUSTER}/client/web")
HERE, ELSEWHERE = "127.0.0.0/8", "10.0.0.0/8"


@pytest.fixture
def node(tmp_path: Path) -> Credentials:
    return Credentials(NODE.files(tmp_path, "n1"), print)


@pytest.fixture
def client(tmp_path: Path) -> Trust:
    return Trust(Credentials(CLIENT.files(tmp_path, "web"), print), node_of(CLUSTER, "n1"))


def mixed(credentials: Credentials, networks: str = HERE, secrets: LoopbackSecrets | None = None) -> Mixed:
    return Mixed(credentials, secrets, networks_of(networks, "--plaintext-from"))


def moving_peer(folder: Path, networks: str = HERE, secrets: LoopbackSecrets | None = None) -> Safeguard:
    """How another server connects, while it is moved too."""
    peer = mixed(Credentials(PEER.files(folder, "n2"), print), networks, secrets)
    trust = trust_of(peer, node_of(CLUSTER, "n1"))
    assert trust is not None
    return trust


def secret(folder: Path) -> LoopbackSecrets:
    made = LoopbackSecrets(CLUSTER, folder / "secret")
    made.make()
    return made


async def asked(connection: FramedConnection) -> list[Any]:
    connection.speak(client_decoder)
    connection.send([get(number) for number in range(1, 500)])
    answers: list[Any] = []
    while len(answers) < 499:
        answers += await connection.receive()
    return answers


async def test_one_port_serves_both(node: Credentials, client: Trust) -> None:
    async with listening(credentials=mixed(node)) as (listener, nursery):
        for trust in (None, client):
            connection, _ = await dial(listener.address(), hello(), nursery, trust=trust)
            assert await asked(connection) == [wire.Missing(number) for number in range(1, 500)]
            (served,) = listener._open
            assert (served.proven is None) == (trust is None)
            connection.close()
            await until(lambda: not listener._open)


async def test_one_port_serves_both_over_ipv6(node: Credentials, client: Trust) -> None:
    keys = mixed(node, "::1, 127.0.0.0/8")
    with capture_logs() as logs:
        async with listening(host="::1", credentials=keys) as (listener, nursery):
            for trust in (None, client):
                connection, _ = await dial(listener.address(), hello(), nursery, trust=trust)
                assert len(await asked(connection)) == 499
                connection.close()
                await until(lambda: not listener._open)
    assert {line["log_level"] for line in logs} == {"warning", "debug"}
    assert {line["event"] for line in logs if line["log_level"] == "warning"} == {"plaintext_accepted"}


async def test_other_networks_of_ipv6_are_told_that_tls_is_spoken(node: Credentials) -> None:
    async with listening(host="::1", credentials=mixed(node, "fd00::/8")) as (listener, nursery):
        with pytest.raises(DialFailedError, match="only TLS is spoken here"):
            await dial(listener.address(), hello(), nursery)


async def test_other_networks_are_told_that_tls_is_spoken(node: Credentials, client: Trust) -> None:
    async with listening(credentials=mixed(node, ELSEWHERE)) as (listener, nursery):
        with pytest.raises(DialFailedError, match="only TLS is spoken here"):
            await dial(listener.address(), hello(), nursery)
        connection, _ = await dial(listener.address(), hello(), nursery, trust=client)
        connection.close()


async def test_plaintext_is_secured_as_before(node: Credentials, client: Trust, tmp_path: Path) -> None:
    """On loopback who speaks plaintext still proves the secret; a certificate needs none."""
    known = secret(tmp_path)
    async with listening(credentials=mixed(node, secrets=known)) as (listener, nursery):
        with pytest.raises(DialFailedError, match="secret-required"):
            await dial(listener.address(), hello(), nursery)
        for trust in (known, client):
            connection, _ = await dial(listener.address(), hello(), nursery, trust=trust)
            assert len(await asked(connection)) == 499
            connection.close()


async def test_a_server_speaks_plaintext_to_one_that_has_no_tls_yet(tmp_path: Path) -> None:
    known = secret(tmp_path)
    async with listening(credentials=known) as (listener, nursery):
        trust = moving_peer(tmp_path, secrets=known)
        connection, _ = await dial(listener.address(), hello(), nursery, trust=trust)
        assert len(await asked(connection)) == 499
        assert connection.proven is None
        connection.close()


async def test_a_server_speaks_tls_to_one_that_has_it(node: Credentials, tmp_path: Path) -> None:
    """Also where plaintext would be accepted."""
    service = {wire.ROLE_PEER: Service(request_decoder, echo)}
    for keys in (node, mixed(node)):
        async with listening(service, credentials=keys) as (listener, nursery):
            greeting = hello(wire.ROLE_PEER)
            connection, _ = await dial(listener.address(), greeting, nursery, trust=moving_peer(tmp_path))
            assert connection.proven is not None
            assert len(await asked(connection)) == 499
            connection.close()


async def test_no_plaintext_to_other_networks(tmp_path: Path) -> None:
    async with listening() as (listener, nursery):
        with pytest.raises(DialFailedError, match="has it TLS"):
            await dial(listener.address(), hello(), nursery, trust=moving_peer(tmp_path, ELSEWHERE))
        assert not listener._open


async def test_without_the_option_nothing_goes_on_in_plaintext(client: Trust) -> None:
    async with listening() as (listener, nursery):
        with pytest.raises(DialFailedError, match="has it TLS"):
            await dial(listener.address(), hello(), nursery, trust=client)


async def test_who_has_said_a_word_of_tls_is_not_spoken_to_in_plaintext(tmp_path: Path) -> None:
    """A stranger's certificate, or a broken handshake, is no reason."""
    stranger = Authority("stranger").issue(f"greenroom://{CLUSTER}/node/n1")
    keys = mixed(Credentials(stranger.files(tmp_path, "stranger"), print))
    async with listening(credentials=keys) as (listener, nursery):
        with pytest.raises(DialFailedError, match="is not trusted"):
            await dial(listener.address(), hello(), nursery, trust=moving_peer(tmp_path))
        assert not listener._open
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        async with trio.open_nursery() as nursery:
            seen: list[bytes] = []

            async def answer() -> None:
                for _ in range(2):
                    await trio.lowlevel.wait_readable(server.fileno())
                    sock, _ = server.accept()
                    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                    seen.append(await stream.receive_some())
                    await stream.send_all(b"\x16\x03\x03")
                    await stream.aclose()

            nursery.start_soon(answer)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(DialFailedError, match="is not trusted"):
                await dial(address, hello(), nursery, trust=moving_peer(tmp_path))
            assert [first[0] for first in seen] == [0x16], "it was not dialled again"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("remote", "host"), [("10.0.0.9:4000", "10.0.0.9"), ("[fd00::9]:4000", "fd00::9"), ("unknown", "")]
)
async def test_each_minute_a_warning_says_who_speaks_plaintext(
    remote: str, host: str, autojump_clock: object
) -> None:
    class Far:
        def __init__(self) -> None:
            self.remote = remote

    plain, far = Plain(networks_of("10.0.0.0/8", "x")), Far()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain.tell_forever, "10.0.0.1:7400")
            await trio.sleep(1)
            plain.enter(far)
            await trio.sleep(WARNING_SECONDS)
            plain.leave(far)
            await trio.sleep(WARNING_SECONDS)
            nursery.cancel_scope.cancel()
    told = [(line["open"], line["taken"], line["hosts"]) for line in logs]
    assert told == [(0, 0, ""), (1, 1, host), (0, 0, "")]
    assert {(line["event"], line["log_level"], line["networks"]) for line in logs} == {
        ("plaintext_accepted", "warning", "10.0.0.0/8")
    }


async def test_options_say_what_a_server_has(tmp_path: Path) -> None:
    files = NODE.files(tmp_path, "n1")
    tls = {"tls_cert": Path(files.cert), "tls_key": Path(files.key), "tls_ca": Path(files.ca)}
    proof = ProofOptions(secret_file=tmp_path / "secret")

    def keys(**options: Any) -> object:
        return keys_of(ServerTlsOptions(**options), proof, CLUSTER, "node", "127.0.0.1", name="n1")

    assert isinstance(keys(), LoopbackSecrets)
    assert isinstance(keys(**tls), Credentials)
    found = keys(**tls, plaintext_from=HERE)
    assert isinstance(found, Mixed)
    assert found.may_be_plain("127.0.0.2:7400")
    assert not found.may_be_plain("10.0.0.2:7400")
    for wrong in ({"plaintext_from": HERE}, {**tls, "plaintext_from": "everybody"}):
        with pytest.raises(UsageError, match="--plaintext-from"):
            ServerTlsOptions(**wrong).check()
