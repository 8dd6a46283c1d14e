"""How long a secret is, in bytes that may bear entropy. Pure.

A measure of form, not of entropy: a text that someone has thought up may look like a random one. It finds
what certainly is too short: a password, a placeholder, `openssl rand -hex 16`.
"""

import re
import warnings

from greenroom.errors import UsageError

BYTES_MIN = 32
"""As long as the SHA-256 of the signature; what `token_urlsafe(32)` and `token_hex(32)` have at the least."""

COMMAND = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
"""Prints a secret that is long enough."""

_HEX = re.compile(r"(?:[0-9a-f]+|[0-9A-F]+)")


def bytes_of(secret: str) -> int:
    """Return the bytes of its text as UTF-8; half of them for hexadecimal digits; repetitions count once."""
    piece = secret[: (secret + secret).find(secret, 1)]
    size = len(piece.encode())
    return size // 2 if _HEX.fullmatch(piece) else size


def is_too_short(secret: str) -> bool:
    """Return whether a secret has too few bytes."""
    return bytes_of(secret) < BYTES_MIN


def refuse_short(secrets: list[str]) -> None:
    """Raise UsageError if the secret that signs is too short."""
    if is_too_short(secrets[0]):
        raise UsageError(
            f"secret is too short: {bytes_of(secrets[0])} bytes, and at least {BYTES_MIN} are needed. What "
            "counts are the bytes of its text, half of them if it is all hexadecimal digits, and once what "
            f"is repeated. Make one with: {COMMAND}. To replace one without logging anyone out, give both, "
            "secret=[new, old]. dev=True takes any"
        )


def check(secrets: list[str]) -> None:
    """Do as `refuse_short` does, and warn of secrets that only verify and are too short."""
    refuse_short(secrets)
    if any(map(is_too_short, secrets[1:])):
        warnings.warn(
            "an old secret that still verifies cookies is too short and may be guessed: remove it once the "
            "sessions that it signed have ended",
            stacklevel=5,
        )
