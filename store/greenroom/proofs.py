"""The proof that both sides of a connection know one secret, which is never sent.

It is for connections without TLS on one host, where another user can reach every port, and can listen on one
that is free. Whoever dials sends a nonce in its hello. Who answers adds a nonce of its own, and proves itself
first. Only then whoever dialled sends a `Proof`, and before it has come nothing else is accepted.

A proof is an HMAC over what both hellos say. It names the direction, so that nobody gives us our own proof
back, and the address, so that whoever listens at another cannot pass proofs on: not on another port, and not
on the same port of another address of loopback (`::1`, `127.0.0.2`).
"""

import base64
import hashlib
import hmac
from typing import Literal, TypeAlias

import msgspec

from greenroom import wire
from greenroom.errors import GreenroomError
from greenroom.identities import DEFAULT_NAMESPACE
from greenroom.negotiation import agree

NONCE_BYTES = 32
"""How many random bytes each side draws for one connection."""
SECRET_BYTES_MIN = 32
NOT_PROVEN = "not-proven"
"""The code of who does not prove, or to whom we cannot prove, that both know one secret."""
Direction: TypeAlias = Literal["answers", "dials"]

_PURPOSE = "greenroom proof 1"
_HTTP_PURPOSE = "greenroom http 1"


class Proof(wire.Frame, frozen=True, tag=3):
    """Second frame of who dialled, if the answer to its hello holds a proof."""

    mac: bytes


class NotProvenError(GreenroomError):
    """The other side does not know the secret."""


class Challenge(msgspec.Struct, frozen=True):
    """Our half of a proof on one connection: the secret, a fresh nonce, and the address of who listens.

    The address is that of the connection itself, as both of its ends see it, in the one form that
    `greenroom.addresses.numeric` gives. `required`: nothing is said to who does not prove that it knows the
    secret.
    """

    secret: bytes
    nonce: bytes
    address: str
    required: bool = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.address}>"

    def asking(self, hello: wire.Hello) -> wire.Hello:
        """Return the hello of who dials."""
        return msgspec.structs.replace(hello, auth=self.nonce)

    def answering(self, asked: wire.Hello, answer: wire.Hello) -> wire.Hello:
        """Return the hello of who answers, with its proof."""
        answer = msgspec.structs.replace(answer, auth=self.nonce)
        return msgspec.structs.replace(answer, auth=self.nonce + self._mac("answers", asked, answer))

    def accepts(self, asked: wire.Hello, answer: wire.Hello, proof: Proof) -> bool:
        """Return whether who dialled has proven itself, by what it asked and what we answered."""
        return hmac.compare_digest(self._mac("dials", asked, answer), proof.mac)

    def proof(self, asked: wire.Hello, answer: wire.Hello) -> Proof | None:
        """Return the proof of who dials, to be sent before anything else; None if nobody asks for it.

        Raises NotProvenError if who answers has not proven itself, and must.
        """
        if not answer.auth and not self.required:
            return None
        if not answer.auth:
            raise NotProvenError("it does not prove that it knows the secret of this cluster")
        if not hmac.compare_digest(self._mac("answers", asked, answer), answer.auth[NONCE_BYTES:]):
            raise NotProvenError("it knows another secret, or none, or listens at another address")
        return Proof(self._mac("dials", asked, answer))

    def _mac(self, direction: Direction, asked: wire.Hello, answer: wire.Hello) -> bytes:
        agreement = agree(answer, asked)
        if agreement is None:
            raise NotProvenError("the two sides speak no common version")
        said = (
            _PURPOSE,
            direction,
            self.address,
            DEFAULT_NAMESPACE,  # no certificate names another
            asked.cluster,
            asked.role,
            asked.sender,
            asked.target,
            asked.auth,
            answer.sender,
            answer.auth[:NONCE_BYTES],
            agreement.version,
            sorted(agreement.features),
        )
        return hmac.digest(self.secret, msgspec.msgpack.encode(said), hashlib.sha256)


def http_token_of(secret: bytes, cluster: str) -> str:
    """Return what a request to an HTTP port of a cluster shows instead of a proof.

    HTTP's clients prove nothing, they send what they have. So this is not the secret, which opens all, but
    what follows from it for HTTP alone.
    """
    told = msgspec.msgpack.encode((_HTTP_PURPOSE, cluster))
    return base64.urlsafe_b64encode(hmac.digest(secret, told, hashlib.sha256)).rstrip(b"=").decode()


def asks(hello: wire.Hello) -> bool:
    """Return whether the hello of who dials holds a nonce, and so asks for a proof."""
    return len(hello.auth) == NONCE_BYTES
