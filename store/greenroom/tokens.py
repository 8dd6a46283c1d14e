"""Tokens: what an app that has no certificate shows instead, and only inside TLS.

A token is a text, `gt1.ID.SECRET`: its id is no secret, and the rest are 256 random bits in base64url. It
stands in a file that is its owner's alone, and goes out in a hello, once the other side has proven by its
certificate that it is a node. Servers keep the digest of the whole text, never the text.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias

import msgspec

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.proofs import Challenge
from greenroom.secret_file import read_private

SECRET_BYTES = 32
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"

_WHAT = "the file of the token"
_TOKEN = re.compile(rf"gt1\.({ID_PATTERN})\.[A-Za-z0-9_-]{{43}}", re.ASCII)


class Token:
    """A token to be shown. Nothing else shows it: no repr, no copy, no pickle."""

    __slots__ = ("_text", "id")

    def __init__(self, token_id: str, text: str) -> None:
        self.id = token_id
        self._text = text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled: give the other process the path of its file")

    def asking(self, hello: wire.Hello) -> wire.Hello:
        """Return the hello of who dials."""
        return msgspec.structs.replace(hello, auth=self._text.encode())

    def proof(self, asked: wire.Hello, answer: wire.Hello) -> None:
        """Return None: by its certificate the other side has proven itself, and nothing more is sent."""

    def written(self) -> bytes:
        """Return what its file holds."""
        return f"{self._text}\n".encode()

    @property
    def digest(self) -> bytes:
        """What servers keep of it."""
        return digest_of(self._text.encode())


Shown: TypeAlias = Challenge | Token
"""How whoever dials proves itself in its hello."""


def new_token(token_id: str, entropy: Callable[[int], bytes]) -> Token:
    """Return a new token. `entropy(n)` returns n random bytes that nobody else gets."""
    secret = base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()
    return Token(token_id, f"gt1.{token_id}.{secret}")


def digest_of(shown: bytes) -> bytes:
    """Return the digest of what was shown. That is SHA-256, once: 256 random bits are not to be guessed."""
    return hashlib.sha256(shown).digest()


def id_in(shown: bytes) -> str:
    """Return the id of the token that a hello holds; empty if that is none."""
    token = _parsed(shown)
    return "" if token is None else token.id


def read_token(path: Path) -> Token:
    """Return the token in a file of mode 0600. Raises UsageError, which shows nothing of it."""
    # Where it is raised no variable holds what was read: some tools show those of each frame.
    token = _parsed(read_private(path, _WHAT)[0].strip())
    if token is None:
        raise UsageError(
            f"{_WHAT} {path} holds none: a token is one line, gt1.ID.SECRET, as `greenroom tokens issue` "
            "writes it"
        )
    return token


def _parsed(content: bytes) -> Token | None:
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return None
    match = _TOKEN.fullmatch(text)
    return None if match is None else Token(match[1], text)
