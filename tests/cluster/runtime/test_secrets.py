"""A listener and those who dial it, where both must prove that they know one secret."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting
from greenroom.loopback_secrets import LoopbackSecrets, usual_files
from greenroom.negotiation import hello
from greenroom.proofs import NONCE_BYTES, Challenge, Proof
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.runtime import refusals
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import Listener, Service
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.proving import own_secret
from tests.cluster.runtime.loopback import (
    CLIENT,
    CLUSTER,
    client_decoder,
    echo,
    get,
    greeting_decoder,
    listening,
    raw_connect,
    raw_receive,
    request_decoder,
)

pytestmark = pytest.mark.trio
HELLO = hello(CLUSTER, wire.ROLE_CLIENT, CLIENT)
ALL = {"client": "client", "admin": "admin", "operator": "operator", "peer": "peer"}


def secrets(folder: Path, name: str = "secret", *, required: bool = True) -> LoopbackSecrets:
    made = LoopbackSecrets(CLUSTER, folder / name, required=required)
    made.make()
    return made


class Served:
    """Counts what is served."""

    def __init__(self) -> None:
        self.count = 0

    async def handle(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        self.count += 1
        await echo(connection, hello, number)

    def services(self) -> dict[str, Service]:
        return {role: Service(request_decoder, self.handle) for role in ALL}


@asynccontextmanager
async def guarded(
    folder: Path, *, required: bool = True
) -> AsyncIterator[tuple[Listener, trio.Nursery, Served]]:
    served = Served()
    credentials = secrets(folder, required=required)
    async with listening(served.services(), credentials=credentials) as (listener, nursery):
        yield listener, nursery, served


async def asked(connection: FramedConnection) -> list[Any]:
    connection.speak(client_decoder)
    connection.send([get(1)])
    return await connection.receive()


@pytest.mark.parametrize("role", ALL)
async def test_who_knows_the_secret_is_served(tmp_path: Path, role: str) -> None:
    async with guarded(tmp_path) as (listener, nursery, _):
        greeting = hello(CLUSTER, role, CLIENT)
        connection, _ = await dial(listener.address(), greeting, nursery, trust=secrets(tmp_path))
        assert await asked(connection) == [wire.Missing(1)]
        connection.close()


async def test_requests_right_behind_the_proof_are_served(tmp_path: Path) -> None:
    """Proof and requests come in one piece, or byte by byte."""
    async with guarded(tmp_path) as (listener, _, _):
        for step in (1 << 20, 1):
            sock = raw_connect(listener)
            challenge = secrets(tmp_path).challenge(listener.address(), bytes(NONCE_BYTES))
            assert challenge is not None
            asking = challenge.asking(HELLO)
            sock.send(encode_greeting(asking))
            answer = await greeting(sock)
            assert isinstance(answer, wire.Hello)
            proof = challenge.proof(asking, answer)
            assert proof is not None
            data = encode_greeting(proof) + encode_frames([get(1), get(2)])
            for start in range(0, len(data), step):
                sock.send(data[start : start + step])
                await trio.lowlevel.checkpoint()
            wanted = bytes(encode_frames([wire.Missing(1), wire.Missing(2)]))
            received = b""
            with trio.fail_after(10):
                while len(received) < len(wanted):
                    received += await raw_receive(sock)
            assert received == wanted
            sock.close()


async def greeting(sock: socket.socket) -> wire.Hello | wire.Goodbye:
    (payload,) = FrameBuffer().feed(await raw_receive(sock))
    answer = greeting_decoder.decode(payload)
    assert isinstance(answer, wire.Hello | wire.Goodbye)
    return answer


@pytest.mark.parametrize("role", ALL)
async def test_who_proves_nothing_is_told_what_to_name(tmp_path: Path, role: str) -> None:
    async with guarded(tmp_path) as (listener, nursery, served):
        with pytest.raises(DialFailedError, match="--secret-file") as raised:
            await dial(listener.address(), hello(CLUSTER, role, CLIENT), nursery)
        assert raised.value.code == "secret-required"
        assert served.count == 0


async def test_who_knows_another_secret_is_not_spoken_to(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (listener, nursery, served):
        with pytest.raises(DialFailedError, match="another secret"):
            await dial(listener.address(), HELLO, nursery, trust=secrets(tmp_path, "other"))
        assert served.count == 0


@pytest.mark.parametrize("way", ["nothing", "guess", "reflected", "request", "goodbye", "long"])
async def test_nothing_is_taken_before_the_proof(tmp_path: Path, way: str) -> None:
    async with guarded(tmp_path) as (listener, _, served):
        sock = raw_connect(listener)
        sock.send(encode_greeting(Challenge(b"", b"n" * NONCE_BYTES, "127.0.0.1:1").asking(HELLO)))
        answer = await greeting(sock)
        assert isinstance(answer, wire.Hello)
        said = {
            "nothing": b"",
            "guess": encode_greeting(Proof(bytes(32))),
            "reflected": encode_greeting(Proof(answer.auth[NONCE_BYTES:])),
            "request": b"",
            "goodbye": encode_greeting(wire.Goodbye("bye", "bye")),
            "long": (1 << 20).to_bytes(4, "big"),
        }[way]
        sock.send(said + encode_frames([get(1)]))
        received = b""
        with trio.fail_after(10):
            while data := await raw_receive(sock):
                received += data
        for payload in FrameBuffer().feed(received):
            assert [type(each) for each in client_decoder.decode(payload)] == [wire.Goodbye]
        assert served.count == 0
        sock.close()


async def test_half_a_proof_is_not_waited_for(tmp_path: Path) -> None:
    credentials = secrets(tmp_path)
    async with listening(credentials=credentials, hello_seconds=0.2) as (listener, _):
        sock = raw_connect(listener)
        sock.send(encode_greeting(Challenge(b"", b"n" * NONCE_BYTES, "127.0.0.1:1").asking(HELLO)))
        assert isinstance(await greeting(sock), wire.Hello)
        sock.send(encode_greeting(Proof(bytes(32)))[:-1])
        with trio.fail_after(10):
            assert await raw_receive(sock) == b""
        sock.close()


async def test_who_takes_a_port_is_told_nothing(tmp_path: Path) -> None:
    """It answers as the process that is meant, and knows no secret."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        heard: list[bytes] = []

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                heard.append(sock.recv(4096))
                pose = hello(CLUSTER, wire.ROLE_PEER, b"S" * 16)
                sock.sendall(encode_greeting(msgspec.structs.replace(pose, auth=bytes(64))))
                try:
                    heard.append(sock.recv(4096))
                except ConnectionResetError:
                    heard.append(b"")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(DialFailedError, match="not spoken to"):
                await dial(address, HELLO, nursery, trust=secrets(tmp_path))
    assert heard[1:] == [b""]


async def test_where_a_proof_is_accepted_others_are_served_too(tmp_path: Path) -> None:
    """As clients of version 3 need it; who knows the secret still proves it, and is not fooled."""
    async with guarded(tmp_path, required=False) as (listener, nursery, _):
        former = msgspec.structs.replace(HELLO, protocol_max=0, features=())
        for greeting_, trust in (
            (HELLO, None),
            (former, None),
            (HELLO, secrets(tmp_path)),
            (HELLO, secrets(tmp_path, required=False)),
        ):
            connection, _ = await dial(listener.address(), greeting_, nursery, trust=trust)
            assert await asked(connection) == [wire.Missing(1)]
            connection.close()
        other = secrets(tmp_path, "other", required=False)
        with pytest.raises(DialFailedError, match="another secret"):
            await dial(listener.address(), HELLO, nursery, trust=other)


async def test_who_demands_a_proof_does_not_speak_to_a_former_release(tmp_path: Path) -> None:
    async with listening() as (listener, nursery):
        with pytest.raises(DialFailedError, match="does not prove"):
            await dial(listener.address(), HELLO, nursery, trust=secrets(tmp_path))
        lenient = secrets(tmp_path, required=False)
        connection, _ = await dial(listener.address(), HELLO, nursery, trust=lenient)
        assert await asked(connection) == [wire.Missing(1)]
        connection.close()


async def test_secret_that_cannot_be_read_lets_nobody_say_a_word(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (listener, nursery, served):
        secrets(tmp_path, "mine")
        (tmp_path / "mine").chmod(0o644)
        with pytest.raises(Exception, match="chmod 600"):
            await dial(listener.address(), HELLO, nursery, trust=LoopbackSecrets(CLUSTER, tmp_path / "mine"))
        assert served.count == 0


async def test_strangers_do_not_take_the_room_of_those_who_prove(tmp_path: Path) -> None:
    """They wait in a room of their own, and the oldest of them makes way."""
    credentials = secrets(tmp_path)
    async with listening(credentials=credentials, connections_max=1) as (listener, nursery):
        strangers = [raw_connect(listener) for _ in range(600)]
        with trio.fail_after(20):
            connection, _ = await dial(listener.address(), HELLO, nursery, trust=secrets(tmp_path))
            assert await asked(connection) == [wire.Missing(1)]
            with pytest.raises(DialFailedError, match="too-many-connections"):
                await dial(listener.address(), HELLO, nursery, trust=secrets(tmp_path))
        connection.close()
        for sock in strangers:
            sock.close()


async def test_proof_is_not_passed_on_from_another_address(tmp_path: Path) -> None:
    """Who listens on the same port elsewhere on loopback would hear and change all that follows."""
    async with guarded(tmp_path) as (listener, nursery, served):

        async def pass_on(stream: trio.SocketStream) -> None:
            target = await trio.open_tcp_stream("127.0.0.1", listener.port)
            async with stream, target, trio.open_nursery() as both:
                both.start_soon(copy, stream, target)
                both.start_soon(copy, target, stream)

        found = await trio.open_tcp_listeners(listener.port, host="127.0.0.9")
        nursery.start_soon(trio.serve_listeners, pass_on, found)
        with pytest.raises(DialFailedError, match="not spoken to"):
            await dial(f"127.0.0.9:{listener.port}", HELLO, nursery, trust=secrets(tmp_path))
        assert served.count == 0


async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
    try:
        while data := await source.receive_some():
            await target.send_all(data)
        await target.send_eof()
    except trio.BrokenResourceError:
        return


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


async def test_log_says_who_lacks_the_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dials and proves nothing; or we ourselves, if our file of the secret is gone."""
    monkeypatch.setattr(refusals, "_limited_log", LimitedLog(structlog.get_logger()))
    known = LoopbackSecrets(CLUSTER, option="--secret-file")
    known.make()
    (file,) = usual_files(CLUSTER)
    secret = file.read_text().strip()
    with capture_logs() as logs:
        async with listening(credentials=known) as (listener, nursery):
            with pytest.raises(DialFailedError, match="secret-required"):
                await dial(listener.address(), HELLO, nursery)
        file.unlink()
        forgetful = LoopbackSecrets(CLUSTER, option="--secret-file")
        async with listening(credentials=forgetful) as (listener, nursery):
            with pytest.raises(DialFailedError, match="not-allowed"):
                await dial(listener.address(), HELLO, nursery)
    theirs, ours = (line for line in logs if line["event"] == "connection_refused")
    assert theirs["reason"] == "secret-required"
    assert "run as the same user" in theirs["detail"]
    assert ours["reason"] == "no-secret"
    assert "--secret-file" in ours["detail"]
    assert secret not in str(logs)


async def test_name_for_loopback_demands_a_proof_on_both_sides(home: Path) -> None:
    """`127.1`, like the host's own name on many systems, stands for an address of loopback."""
    known = own_secret(ProofOptions(), CLUSTER, "127.1")
    assert known is not None
    async with listening(credentials=known, host="127.1") as (listener, nursery):
        assert listener.address() == f"127.1:{listener.port}"
        with pytest.raises(DialFailedError, match="--secret-file"):
            await dial(listener.address(), HELLO, nursery)
        connection, _ = await dial(listener.address(), HELLO, nursery, trust=LoopbackSecrets(CLUSTER))
        assert await asked(connection) == [wire.Missing(1)]
        connection.close()
    async with listening(host="127.1") as (listener, nursery):
        with pytest.raises(DialFailedError, match="does not prove"):
            await dial(listener.address(), HELLO, nursery, trust=LoopbackSecrets(CLUSTER))


async def test_server_that_finds_no_secret_serves_nobody(home: Path) -> None:
    """It was told to demand a proof."""
    async with listening(credentials=LoopbackSecrets(CLUSTER)) as (listener, nursery):
        with pytest.raises(DialFailedError):
            await dial(listener.address(), HELLO, nursery)
