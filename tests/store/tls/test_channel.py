"""TLS without sockets, and around a socket pair."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.identities import identity_of
from greenroom.tls.channel import EARLY_BYTES_MAX, RECORD_BYTES_MAX, Channel, TlsError
from greenroom.tls.credentials import Loaded, load
from greenroom.tls.sockets import TlsSocket
from tests.authority import Authority
from tests.opcodes import opcodes

NODE, CLIENT = "greenroom://shop/node/n1", "greenroom://shop/client/web"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def node(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(authority.issue(NODE).files(tmp_path_factory.mktemp("node")))


@pytest.fixture(scope="module")
def client(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(authority.issue(CLIENT).files(tmp_path_factory.mktemp("client")))


def meet(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[Channel, Channel]:
    """Return two channels that have shaken hands, or raise what one of them raised."""
    here, there = Channel(client, server_side=False), Channel(server, server_side=True)
    while not (here.established and there.established):
        if not here.established:
            here.handshake()
        there.feed(here.take())
        if not there.established:
            there.handshake()
        here.feed(there.take())
        if here.established:
            read(here)  # an alert, if the server refused what we showed
    return here, there


def read(channel: Channel) -> bytes:
    plaintext = bytearray(1 << 20)
    return bytes(plaintext[: channel.read_into(memoryview(plaintext))])


def test_both_sides_see_a_verified_identity(node: Loaded, client: Loaded) -> None:
    here, there = meet(client.client, node.server)
    assert identity_of(here.certificate).uri == NODE
    assert identity_of(there.certificate).uri == CLIENT


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200_000), st.lists(st.integers(1, 40_000), min_size=1, max_size=30))
def test_plaintext_survives_any_cutting(
    node: Loaded, client: Loaded, plaintext: bytes, cuts: list[int]
) -> None:
    here, there = meet(client.client, node.server)
    here.write(memoryview(plaintext))
    ciphertext, got, at = here.take(), b"", 0
    assert len(plaintext) < 16 or plaintext[:16] not in ciphertext
    while ciphertext:
        size = cuts[at % len(cuts)]
        there.feed(ciphertext[:size])
        got += read(there)
        assert not there.holds, "what was fed and is complete was read"
        ciphertext, at = ciphertext[size:], at + 1
    assert got == plaintext


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_changed_ciphertext_is_refused(node: Loaded, client: Loaded, data: st.DataObject) -> None:
    here, there = meet(client.client, node.server)
    here.write(memoryview(b"x" * 100))
    ciphertext = bytearray(here.take())
    place = data.draw(st.integers(5, len(ciphertext) - 1))
    ciphertext[place] ^= data.draw(st.integers(1, 255))
    there.feed(bytes(ciphertext))
    with pytest.raises(TlsError):
        read(there)


def test_endless_handshake_is_bounded(node: Loaded) -> None:
    there = Channel(node.server, server_side=True)
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(0x4000 - 4)
    there.feed(record)
    assert not there.handshake()
    with pytest.raises(TlsError, match="more than 32768 bytes"):
        there.feed(record)
    assert there._incoming.pending <= EARLY_BYTES_MAX


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=4000))
def test_noise_instead_of_a_handshake_is_a_tls_error(node: Loaded, noise: bytes) -> None:
    there = Channel(node.server, server_side=True)
    there.feed(noise)
    there.feed_end()
    with pytest.raises(TlsError):
        there.handshake()


def test_end_without_farewell_is_an_error(node: Loaded, client: Loaded) -> None:
    here, there = meet(client.client, node.server)
    there.feed_end()
    with pytest.raises(TlsError, match="broke off"):
        read(there)
    here, there = meet(client.client, node.server)
    here.write(memoryview(b"last"))
    here.close()
    there.feed(here.take())
    assert (read(there), there.ended) == (b"last", True)


def test_no_ticket_is_given(node: Loaded, client: Loaded) -> None:
    here, there = meet(client.client, node.server)
    there.write(memoryview(b"x"))
    here.feed(there.take())
    assert read(here) == b"x"
    assert not here._tls.session.has_ticket  # type: ignore[union-attr]


def test_other_versions_and_protocols_are_refused(node: Loaded, client: Loaded) -> None:
    for change, words in (
        (lambda context: context.set_alpn_protocols(["h2"]), "does not speak greenroom/4"),
        (lambda context: context.set_alpn_protocols(["h2", "greenroom/3"]), "does not speak greenroom/4"),
        (older, "TLS 1.3"),
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["greenroom/4"])
        change(context)
        with pytest.raises(TlsError, match=words):
            meet(context, node.server)


def older(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def test_strangers_are_refused_by_both_sides(node: Loaded, client: Loaded, tmp_path: Path) -> None:
    other = Authority("other CA")
    strange_node = load(other.issue(NODE).files(tmp_path))
    strange_client = load(other.issue(CLIENT).files(tmp_path))
    with pytest.raises(TlsError, match="its certificate is not valid"):
        meet(client.client, strange_node.server)
    with pytest.raises(TlsError, match="its certificate is not valid"):
        meet(strange_client.client, strange_to(node, strange_node))
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    nobody.set_alpn_protocols(["greenroom/4"])
    with pytest.raises(TlsError, match="shows no certificate"):
        meet(nobody, node.server)


@pytest.mark.parametrize(
    ("issued", "words"),
    [
        ({"days": -1, "ago": 2}, "its holder needs a newer one"),
        ({"ago": -1}, "compare the clocks"),
        ({}, "no CA in our file of CAs has issued it"),
        (None, "it has to be given one"),
    ],
)
def test_each_refusal_says_what_to_do(
    authority: Authority, node: Loaded, tmp_path: Path, issued: dict[str, float] | None, words: str
) -> None:
    """Without anything that the certificate says of its holder: it proves nothing."""
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
    shown.set_alpn_protocols(["greenroom/4"])
    if issued is not None:
        issuer = authority if issued else Authority("other CA")
        files = issuer.issue("greenroom://shop/client/mallory", **issued).files(tmp_path)
        shown.load_cert_chain(files.cert, files.key)
    with pytest.raises(TlsError, match=words) as raised:
        meet(shown, node.server)
    assert "mallory" not in str(raised.value)


def strange_to(node: Loaded, other: Loaded) -> ssl.SSLContext:
    """Return the server of `node`, after the client was told to trust it."""
    other.client.load_verify_locations(cadata=next(iter_ca(node)))
    return node.server


def iter_ca(loaded: Loaded) -> Iterator[bytes]:
    yield from loaded.client.get_ca_certs(binary_form=True)


def test_client_certificate_does_not_serve(authority: Authority, client: Loaded, tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="not valid"):
        meet(client.client, client.server)


# --- around a socket -------------------------------------------------------------------------------------


@pytest.fixture
def pair(node: Loaded, client: Loaded) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.settimeout(0)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    here = TlsSocket(ours, client.client, server_side=False)
    there = TlsSocket(theirs, node.server, server_side=True)
    buffer = memoryview(bytearray(4096))
    while (here.advance(buffer), there.advance(buffer)) != ("done", "done"):
        pass
    yield here, there
    ours.close()
    theirs.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=150_000), max_size=6), st.integers(1, 200_000))
def test_stream_survives_a_full_kernel(node: Loaded, client: Loaded, chunks: list[bytes], room: int) -> None:
    """A caller sends the rest of what went in part, as with any socket; every byte arrives once, in order."""
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.settimeout(0)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    here = TlsSocket(ours, client.client, server_side=False)
    there = TlsSocket(theirs, node.server, server_side=True)
    received, buffer = bytearray(), memoryview(bytearray(room + RECORD_BYTES_MAX))
    while (here.advance(buffer), there.advance(buffer)) != ("done", "done"):
        pass
    queue = b"".join(chunks)
    whole = queue
    while len(received) < len(whole):
        if queue:
            with suppress(BlockingIOError):
                queue = queue[here.sendmsg([queue[:5], queue[5:]]) :]
        with suppress(BlockingIOError):
            count = there.recv_into(buffer, room)
            received += buffer[:count]
    assert received == whole
    assert not queue
    ours.close()
    theirs.close()


def test_a_small_message_takes_the_shortest_way(pair: tuple[TlsSocket, TlsSocket]) -> None:
    """One caller at a time waits for every instruction, of both sides; 3.11 takes 91 and 137 of them."""
    here, there = pair
    buffer = memoryview(bytearray(1 << 16))
    for _ in range(3):
        sent = opcodes(lambda: here.send(b"x" * 300))
        received = opcodes(lambda: there.recv_into(buffer, 1 << 15))
        assert buffer[:300] == b"x" * 300
        assert (sent < 130, received < 160) == (True, True), (sent, received)


def test_what_the_kernel_does_not_take_is_sent_first_of_all(pair: tuple[TlsSocket, TlsSocket]) -> None:
    """Also a single byte, of which no less can be reported."""
    here, there = pair
    buffer, received = memoryview(bytearray(1 << 17)), b""
    sent = refused = 0
    while sent < 3000:
        try:
            sent += here.send(bytes([sent % 251]))
        except BlockingIOError:
            refused += 1
            received += bytes(buffer[: there.recv_into(buffer, 100)])
    with suppress(BlockingIOError):
        while True:
            received += bytes(buffer[: there.recv_into(buffer)])
    assert refused > 10
    assert received == bytes(number % 251 for number in range(sent))


def test_close_is_an_end_and_a_reset_is_none(pair: tuple[TlsSocket, TlsSocket]) -> None:
    here, there = pair
    here.send(b"bye")
    here.close()
    buffer = bytearray(1 << 16)
    assert buffer[: there.recv_into(buffer)] == b"bye"
    assert there.recv_into(buffer) == 0


def test_reset_brings_no_farewell(pair: tuple[TlsSocket, TlsSocket]) -> None:
    here, there = pair
    here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    here.close()
    with pytest.raises(OSError, match="broke off"):
        there.recv_into(bytearray(1 << 16))


def test_half_closed_side_still_hears(pair: tuple[TlsSocket, TlsSocket]) -> None:
    here, there = pair
    here.shutdown(socket.SHUT_WR)
    buffer = bytearray(1 << 16)
    assert there.recv_into(buffer) == 0
    there.send(b"so long")
    assert buffer[: here.recv_into(buffer)] == b"so long"
