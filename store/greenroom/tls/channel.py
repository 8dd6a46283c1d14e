"""One TLS connection without its socket: ciphertext comes in and goes out, and so does plaintext.

After each `read_into`, nothing that could be decrypted is left behind, so whoever waits for a socket to be
readable misses nothing.
"""

import ssl
from contextlib import suppress
from typing import Any

PROTOCOL = "greenroom/4"
"""What ALPN must agree on: another service behind the same certificate is not taken for one of ours."""
EARLY_BYTES_MAX = 32 * 1024
"""Ciphertext that is taken before the handshake has ended; a chain of certificates takes a tenth of it."""
RECORD_BYTES_MAX = 17 * 1024
"""A record of TLS with all that is around it."""

_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS: one side has TLS and the other has not",
    "HTTP_REQUEST": "it speaks HTTP, not TLS",
    "NO_CERTIFICATE": "it shows no certificate; it has to be given one, with its key",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate; it has to be given one, with its key",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the CA of our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate, and takes no token without --tokens",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, it says",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "our certificate is not meant for this purpose, it says",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake",
}
_UNKNOWN_CA = "no CA in our file of CAs has issued it"
_HINTS = {
    2: _UNKNOWN_CA,
    9: "compare the clocks of both hosts",
    10: "its holder needs a newer one",
    18: _UNKNOWN_CA,
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    26: "it is for servers and was shown by a client, or the other way round",
}
"""What to do about a certificate, by the number of what is wrong with it (X509_V_ERR_... of OpenSSL)."""


HAS_IT_TLS = "has it TLS? If not, connect with greenroom://, or without the options of TLS"
"""What to ask about somebody who ends a handshake without a word of TLS."""


class TlsError(OSError):
    """The connection is not, or no longer, one of TLS with somebody that we trust. Says why."""


class Channel:
    """The state of TLS on one connection.

    `feed` takes ciphertext, and `take` returns what has to be sent. Nothing is read or written before
    `handshake` has returned True. `ended`: the other side has said that nothing more comes. Every method
    that takes ciphertext or plaintext raises TlsError; the connection must then be ended, after `take`.
    """

    __slots__ = ("_early_bytes", "_incoming", "_outgoing", "_tls", "ended", "established")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._early_bytes = 0
        self.established = False
        self.ended = False

    @property
    def holds(self) -> bool:
        """Whether `read_into` may bring something although nothing was fed since the last one."""
        return self.ended or self._incoming.pending > 0

    @property
    def speaks(self) -> bool:
        """Whether there is something to `take`."""
        return self._outgoing.pending > 0

    @property
    def heard(self) -> bool:
        """Whether anything was fed."""
        return self.established or self._early_bytes > 0

    @property
    def context(self) -> ssl.SSLContext:
        """What this side verifies the other by."""
        return self._tls.context

    @property
    def certificate(self) -> dict[str, Any]:
        """The verified certificate of the other side."""
        return dict(self._tls.getpeercert() or {})

    def feed(self, ciphertext: bytes | memoryview) -> None:
        """Take what the socket brought."""
        if not self.established:
            self._early_bytes += len(ciphertext)
            if self._early_bytes > EARLY_BYTES_MAX:
                raise TlsError(f"it sent more than {EARLY_BYTES_MAX} bytes before the TLS handshake ended")
        self._incoming.write(ciphertext)

    def feed_end(self) -> None:
        """Take that the socket brings nothing more."""
        self._incoming.write_eof()

    def take(self) -> bytes:
        """Return the ciphertext that has to be sent now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def handshake(self) -> bool:
        """Go on with the handshake as far as what was fed allows; return whether it has ended."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(_told(error)) from None
        if self._tls.selected_alpn_protocol() != PROTOCOL:
            raise TlsError(f"it does not speak {PROTOCOL} within TLS")
        self.established = True
        return True

    def read_into(self, plaintext: memoryview) -> int:
        """Decrypt all that was fed; return how much it is, which must have room.

        0 if no record is complete yet, or if the other side has `ended` what it sends.
        """
        filled, room = 0, len(plaintext)
        read, incoming = self._tls.read, self._incoming
        try:
            while count := read(room - filled, plaintext[filled:] if filled else plaintext):
                filled += count  # type: ignore[operator]  # with a buffer it is a count
                # Asking again only to learn that there is nothing more costs as much as a small record. What
                # is left of a record itself is left for want of room.
                if not incoming.pending or filled == room:
                    return filled
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # both sides have ended
            self.ended = True
        except ssl.SSLError as error:
            if not filled:  # else it comes again at the next call
                raise TlsError(_told(error)) from None
        return filled

    def decrypt(self, buffer: memoryview, count: int) -> int:
        """Feed so many bytes from the beginning of the buffer, and read into it. Once established."""
        self._incoming.write(buffer[:count])
        return self.read_into(buffer)

    def write(self, plaintext: bytes | bytearray | memoryview) -> None:
        """Encrypt all of this, which is not empty."""
        write = self._tls.write
        try:
            written = write(plaintext)
            while written < len(plaintext):
                written += write(memoryview(plaintext)[written:])
        except ssl.SSLError as error:
            raise TlsError(_told(error)) from None

    def encrypt(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Encrypt all of this, which is not empty; return that, behind what else has to be sent."""
        self.write(plaintext)
        return self._outgoing.read()

    def close(self) -> None:
        """Say that nothing more comes from this side."""
        # It complains that the other side has not said so yet, or that the handshake is not over.
        with suppress(ssl.SSLError):
            self._tls.unwrap()


def _told(error: ssl.SSLError) -> str:
    """Say what went wrong, without anything that a stranger has written into its certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _HINTS.get(error.verify_code, "")
        return f"its certificate is not valid: {error.verify_message}{hint and f' ({hint})'}"
    if isinstance(error, ssl.SSLEOFError):
        return "it broke off the TLS connection"
    reason = error.reason or "unknown"
    return _REASONS.get(reason, f"TLS failed ({reason.lower().replace('_', ' ')})")
