"""Connections that simulated processes accept: the real `Door` answers hellos.

Payloads are lists of messages or, with `Codec.encoded`, the bytes of their frames. Clients always get bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from greenroom import negotiation, wire
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting
from greenroom.identities import Identity, IdentityRole
from greenroom.proofs import NONCE_BYTES, Challenge, Proof
from greenroom.tokens import Shown, Token
from greenroom_cluster.links import handshake
from greenroom_cluster.tokens.table import PLAINTEXT, Bearer, Uncertified
from simulations.cluster.doors import FrameDecoder, door_of
from simulations.cluster.tokens import LOOK_NS, NOTHING_KNOWN, TokenBook
from simulations.kernel.network import End, Owner
from simulations.kernel.processes import Process

CLUSTER = "simulated"
_FRAME_BYTES_MAX = 16 << 20

_hello_decoder = msgspec.msgpack.Decoder(wire.Hello)
_proof_decoder = msgspec.msgpack.Decoder(Proof)

Decoder = "msgspec.msgpack.Decoder[Any]"


def hello(role: str, sender: bytes, target: bytes = b"") -> wire.Hello:
    """Return a hello of this cluster."""
    return negotiation.hello(CLUSTER, role, sender, target)


def holder(role: IdentityRole, name: str, namespace: str = "") -> Identity:
    """Return the identity of a process, as its certificate would say it."""
    return Identity(CLUSTER, role, name, namespace)


def identity_of(process: Process | Owner) -> Identity | None:
    """Return who a process is by its certificate; None if it has none.

    None has one in a test, where a secret is proven, and where it shows a token.
    """
    found = getattr(process, "holder", None)
    known = getattr(process, "network", None)
    if not isinstance(found, Identity) or known is None:
        return found if isinstance(found, Identity) else None
    return None if known.secret or token_of(process) is not None else found


def token_of(process: Process | Owner) -> Token | None:
    """Return the token that a process shows, if it does."""
    network = getattr(process, "network", None)
    book = None if network is None else network.tokens
    return book.held_by(process.machine.name) if isinstance(book, TokenBook) else None


def challenge_of(process: Process, address: str) -> Shown | None:
    """Return the token of a process, or its half of the proof, on a connection to this address."""
    return token_of(process) or challenge_at(process, address)


def challenge_at(process: Process, address: str) -> Challenge | None:
    """Return the half of a process of the proof on a connection to, or at, this address."""
    secret = process.network.secret
    if not secret:
        return None
    return Challenge(secret, process.random.randbytes(NONCE_BYTES), address)


class Codec:
    """Whether messages between servers cross the wire as bytes."""

    def __init__(self, *, encoded: bool) -> None:
        self.encoded = encoded

    def pack(self, messages: Sequence[wire.Frame]) -> Any:
        """Return the payload for these messages."""
        return bytes(encode_frames(messages, _FRAME_BYTES_MAX)) if self.encoded else messages


def unpack(payload: Any, decoder: FrameDecoder) -> list[Any]:
    """Return the messages of a payload."""
    if isinstance(payload, bytes | bytearray):
        frames = FrameBuffer(_FRAME_BYTES_MAX).feed(payload)
        return [message for frame in frames for message in decoder.decode(frame)]
    return list(payload)


def greeting_of(payload: bytes, decoder: "msgspec.msgpack.Decoder[Any]") -> Any:
    """Return the greeting that a payload is."""
    (frame,) = FrameBuffer().feed(payload)
    return decoder.decode(frame)


class Service:
    """The service for one role: `handle(served)` sets the connection's callbacks."""

    def __init__(
        self,
        decoder: "msgspec.msgpack.Decoder[Any]",
        handle: "Callable[[Served], None]",
        *,
        target_required: bool = False,
    ) -> None:
        self.decoder = decoder
        self.handle = handle
        self.target_required = target_required


class Acceptor:
    """Listens on an address for a process. Where there are tokens, it may be one that knows none."""

    def __init__(
        self,
        process: Process,
        codec: Codec,
        address: str,
        identity: bytes,
        services: Mapping[str, Service],
        *,
        takes_tokens: bool = True,
    ) -> None:
        self.process = process
        self.codec = codec
        self.address = address
        self.services = services
        self.numbers = 0
        self.door = door_of(process)(
            CLUSTER, identity, {role: service.target_required for role, service in services.items()}
        )
        self._book: TokenBook | None = process.network.tokens
        self._takes_tokens = takes_tokens
        self._known = NOTHING_KNOWN
        self._looked_ns = 0
        self._bearers: dict[Served, Bearer] = {}
        process.network.listen(process, address, self._accept)
        if self._book is not None and takes_tokens:
            self._look_on()

    def _accept(self, end: End) -> None:
        self.numbers += 1
        Served(self, end, self.numbers)

    # --- tokens ------------------------------------------------------------------------------------------

    def uncertified(self, *, secured: bool) -> Uncertified:
        """Return by what to judge the hello of who shows no certificate."""
        if self._book is None:
            return PLAINTEXT
        self._look()
        return Uncertified(self._known.table, self.process.machine.wall_us() / 1e6, secured)

    def serves(self, served: "Served", bearer: Bearer | None, *, secured: bool) -> None:
        """Note who is served without a certificate, where there are tokens."""
        if self._book is None or served.greeting is None:
            return
        self._book.check_served(self._known, served.greeting, secured=secured, identity=served.identity)
        self.process.network.happened["served by a token"] += 1
        if bearer is not None:
            self._bearers[served] = bearer

    def ends(self, served: "Served") -> None:
        """Note that a connection has ended."""
        self._bearers.pop(served, None)

    def _look_on(self) -> None:
        self._look()
        self.process.later(LOOK_NS / 1e9, self._look_on)

    def _look(self) -> None:
        """Read the file if it is time, and judge the open connections again."""
        now_ns = self.process.machine.now_ns()
        if self._book is None or not self._takes_tokens or now_ns < self._looked_ns + LOOK_NS:
            return
        self._looked_ns, self._known = now_ns, self._book.known
        wall_seconds = self.process.machine.wall_us() / 1e6
        for served, bearer in list(self._bearers.items()):
            if objection := self._known.table.objection(bearer, wall_seconds):
                self.process.network.happened["bearer was cut off"] += 1
                served.abort(objection)
        for served in self._bearers:
            if served.greeting is None or self._known.holder(served.greeting.auth) is None:
                self._book.violate("tokens", "who has a token that was revoked is served on")


class Served:
    """The accepting side of a connection: hellos, then the service."""

    __slots__ = (
        "_acceptor",
        "_awaited",
        "_secured",
        "agreement",
        "decoder",
        "end",
        "greeting",
        "identity",
        "number",
        "on_closed",
        "on_messages",
    )

    def __init__(self, acceptor: Acceptor, end: End, number: int) -> None:
        self._acceptor = acceptor
        self.agreement = negotiation.Agreement(wire.PROTOCOL_VERSION)
        self.decoder: FrameDecoder = _hello_decoder
        self.end = end
        self.number = number
        self._awaited: handshake.AwaitProof | None = None
        self._secured = True
        self.identity: Identity | None = None
        self.greeting: wire.Hello | None = None
        self.on_messages: Callable[[list[Any]], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing
        end.on_data = self._greeted
        end.on_closed = self._closed

    @property
    def sender(self) -> bytes:
        """The identity in the other side's hello."""
        return b"" if self.greeting is None else self.greeting.sender

    @property
    def role(self) -> str:
        """The role in the other side's hello."""
        return "" if self.greeting is None else self.greeting.role

    def _greeted(self, payload: Any) -> None:
        greeting = greeting_of(payload, _hello_decoder)
        acceptor = self._acceptor
        other = self.end.peer.process
        self.identity = identity_of(other)
        now_us = acceptor.process.clock_us()
        challenge, uncertified = None, PLAINTEXT
        if self.identity is None:
            challenge = challenge_at(acceptor.process, acceptor.address)
            self._secured = not getattr(other, "plaintext", False)
            uncertified = acceptor.uncertified(secured=self._secured)
        effects = acceptor.door.receive(
            greeting, now_us, identity=self.identity, challenge=challenge, uncertified=uncertified
        )
        self._perform(effects, greeting)

    def _proven(self, payload: Any) -> None:
        """Take the proof, and what came with it."""
        assert self._awaited is not None
        try:
            first, *rest = FrameBuffer(_FRAME_BYTES_MAX).feed(payload)
            proof = _proof_decoder.decode(first)
            self._perform(self._acceptor.door.proven(self._awaited, proof), self._awaited.asked)
            for frame in rest if self.greeting is not None else ():
                self.on_messages(self.decoder.decode(frame))
        except (msgspec.ValidationError, TypeError):
            self._acceptor.process.network.close(self.end, reset=True)

    def _perform(self, effects: list[handshake.DoorEffect], greeting: wire.Hello) -> None:
        network = self._acceptor.process.network
        for effect in effects:
            match effect:
                case handshake.Serve(agreement=agreement, bearer=bearer):
                    self.greeting = greeting
                    self.agreement = agreement
                    if self.identity is None:
                        self.identity = None if bearer is None else bearer.identity
                        self._acceptor.serves(self, bearer, secured=self._secured)
                    self.decoder = self._acceptor.services[greeting.role].decoder
                    self.end.on_data = self._received
                case handshake.Say(greeting=answer):
                    network.send(self.end, encode_greeting(answer))
                case handshake.AwaitProof():
                    self._awaited = effect
                    self.end.on_data = self._proven
                case handshake.Tell(message=message):
                    network.send(self.end, bytes(encode_frames([message], _FRAME_BYTES_MAX)))
                case handshake.Finish(code=code):
                    network.happened[f"goodbye {code}"] += 1
                    network.close(self.end, reset=False)
        if self.greeting is not None:
            if (hears := getattr(self.end.peer.process, "on_served", None)) is not None:
                hears(greeting.role)
            self._acceptor.services[greeting.role].handle(self)

    def _received(self, payload: Any) -> None:
        self.on_messages(unpack(payload, self.decoder))

    def _closed(self, _reason: str) -> None:
        self._acceptor.ends(self)
        self.on_closed()

    @property
    def queued(self) -> bool:
        """Whether a message sent now would wait in this process."""
        return self._acceptor.process.network.queue_ns(self.end) > 0

    def send(self, messages: Sequence[wire.Frame], *, urgent: bool = False) -> None:
        """Send to a server."""
        acceptor = self._acceptor
        acceptor.process.network.send(self.end, acceptor.codec.pack(messages), urgent=urgent)

    def send_bytes(self, messages: Sequence[wire.Frame]) -> None:
        """Send as bytes, as clients need it."""
        self._acceptor.process.network.send(self.end, bytes(encode_frames(messages, _FRAME_BYTES_MAX)))

    def abort(self, _reason: str) -> None:
        """End it with a reset."""
        self._acceptor.ends(self)
        self._acceptor.process.network.close(self.end, reset=True)
        self.on_closed()


def _nothing(*_: Any) -> None:
    pass
