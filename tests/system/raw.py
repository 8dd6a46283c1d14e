"""A connection to any port of a cluster that says what the test wants, and nothing else."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from greenroom import wire
from greenroom.addresses import parse_address
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.proofs import NONCE_BYTES
from greenroom_cluster.coordination.messages import CoordinatorReply
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, PeerReply

_greetings = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)
_decoder = messages_decoder(wire.ServerMessage | PeerReply | CoordinatorReply)


def hello(role: str, *, cluster: str = "greenroom", target: bytes = b"", sender: bytes = b"") -> wire.Hello:
    """Return a good hello for that role; the sender is made up if not given."""
    sender = sender or os.urandom(16)
    return wire.Hello(wire.PROTOCOL_VERSION, wire.ROUTING_VERSION, cluster, role, sender, target)


class RawConnection:
    """Bytes and messages, as they come. `OSError` and trio's `BrokenResourceError` go through."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._frames = FrameBuffer(PEER_FRAME_BYTES_MAX)
        self._messages: list[Any] = []
        self._greeted = False

    async def send(self, messages: Sequence[wire.Frame]) -> None:
        await self.stream.send_all(bytes(encode_frames(messages, PEER_FRAME_BYTES_MAX)))

    async def receive(self) -> Any:
        """Return the next message; None once the other side has ended the connection."""
        while not self._messages:
            data = await self.stream.receive_some()
            if not data:
                return None
            for payload in self._frames.feed(data):
                self._messages += _decoder.decode(payload) if self._greeted else [_greetings.decode(payload)]
                self._greeted = True
        return self._messages.pop(0)

    async def introduce(self, opening: wire.Hello, port: int) -> Any:
        """Exchange hellos, as a process of this user, who knows the secret; return the answer."""
        challenge = LoopbackSecrets(opening.cluster).challenge(f"127.0.0.1:{port}", os.urandom(NONCE_BYTES))
        asked = opening if challenge is None else challenge.asking(opening)
        await self.send([asked])
        answer = await self.receive()
        if challenge is not None and isinstance(answer, wire.Hello):
            proof = challenge.proof(asked, answer)
            assert proof is not None
            await self.stream.send_all(encode_greeting(proof))
        return answer

    async def ended(self, seconds: float = 10.0) -> None:
        """Read until the other side ends the connection, which must happen within that time."""
        with trio.fail_after(seconds):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                return


@asynccontextmanager
async def connected(address: str | int, *, source: str | None = None) -> AsyncIterator[RawConnection]:
    """Connect to an address, or a port of this machine; from that address of ours, if one is given."""
    host, port = parse_address(address) if isinstance(address, str) else ("127.0.0.1", address)
    async with await trio.open_tcp_stream(host, port, local_address=source) as stream:
        yield RawConnection(stream)


@asynccontextmanager
async def greeted(
    address: str | int, opening: wire.Hello, *, source: str | None = None
) -> AsyncIterator[RawConnection]:
    """Connect, as `connected`, and exchange hellos."""
    async with connected(address, source=source) as connection:
        port = parse_address(address)[1] if isinstance(address, str) else address
        answer = await connection.introduce(opening, port)
        assert isinstance(answer, wire.Hello), answer
        yield connection
