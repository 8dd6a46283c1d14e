"""Seals what passes through an app and comes back to this process, so that it reveals nothing there.

For state that must travel in what the app can look at, and may print into a page. The key is this process's
own and never leaves it. Hidden by a keystream of SHAKE-256 over key and a random nonce, which is never used
twice, and authenticated by BLAKE2 over all of it, as encrypt-then-MAC has it.
"""

import base64
import hmac
import os
from hashlib import blake2b, shake_256

_NONCE_BYTES = 16
_TAG_BYTES = 16


class Seal:
    """Seals bytes, and opens what it has sealed."""

    def __init__(self) -> None:
        self._stream_key = os.urandom(32)
        self._tag_key = os.urandom(32)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def close(self, payload: bytes) -> str:
        """Return text that reveals nothing but the length of the payload."""
        nonce = os.urandom(_NONCE_BYTES)
        hidden = nonce + self._crossed(nonce, payload)
        return base64.b64encode(self._tag(hidden) + hidden).decode()

    def open(self, text: object) -> bytes | None:
        """Return the payload, or None for anything that was not sealed here."""
        if not isinstance(text, str):
            return None
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            return None
        tag, hidden = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if len(hidden) < _NONCE_BYTES or not hmac.compare_digest(tag, self._tag(hidden)):
            return None
        return self._crossed(hidden[:_NONCE_BYTES], hidden[_NONCE_BYTES:])

    def _tag(self, hidden: bytes) -> bytes:
        return blake2b(hidden, key=self._tag_key, digest_size=_TAG_BYTES).digest()

    def _crossed(self, nonce: bytes, payload: bytes) -> bytes:
        size = len(payload)
        stream = shake_256(self._stream_key + nonce).digest(size)
        return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
