"""Session ids, and what replaces them elsewhere: digests, routing points, handles.

A session id is a secret: anyone who has it is logged in. So nothing here puts one into an error, and the
cluster sees only the id's BLAKE2b-256 digest and its 16-bit routing point.

An id minted here reads `gr-<point, 4 hex digits>-<192 random bits in base64url>`. The point travels in the
id, so that a rotated id keeps its place in the cluster. Any other id (a framework's own) is routed by its
digest.
"""

import base64
import hashlib
import re
import secrets

from greenroom.errors import UsageError

POINT_BITS = 16
DIGEST_BYTES = 32
SESSION_ID_BYTES_MAX = 256
RANDOM_BYTES = 24

# Copied for every id: to make a new one takes longer than to hash a short id.
_blank = hashlib.blake2b(digest_size=DIGEST_BYTES)
_MINTED = re.compile(r"gr-[0-9a-f]{4}-[A-Za-z0-9_-]{32}", re.ASCII)
_POINT = slice(3, 7)
_HANDLE_ORDER_BYTES = 4
_blank_handle = hashlib.blake2b(digest_size=DIGEST_BYTES - _HANDLE_ORDER_BYTES, person=b"greenroom handle")
_HANDLE = re.compile(r"[A-Za-z0-9_-]{46}", re.ASCII)


def new_session_id(point: int | None = None) -> str:
    """Return a fresh id with 192 random bits, safe in a cookie and in a URL.

    `point` places it on that routing point (0 to 65535); by default the place is random too.
    """
    if point is None:
        point = secrets.randbits(POINT_BITS)
    elif not 0 <= point < 1 << POINT_BITS:
        raise UsageError(f"a routing point lies between 0 and {(1 << POINT_BITS) - 1}, not {point}")
    return f"gr-{point:04x}-{secrets.token_urlsafe(RANDOM_BYTES)}"


def check_session_id(session_id: str) -> None:
    """Raise UsageError unless this is a str of 1 to 256 bytes in UTF-8. The error never shows it."""
    if not isinstance(session_id, str):
        raise UsageError(f"a session id is a str, not {type(session_id).__name__}")
    if session_id.isascii():
        size = len(session_id)
    else:
        size = len(session_id.encode("utf-8", "surrogatepass"))
        if any("\ud800" <= character <= "\udfff" for character in session_id):
            raise UsageError("a session id must be encodable as UTF-8; this one holds a lone surrogate")
    if not 1 <= size <= SESSION_ID_BYTES_MAX:
        raise UsageError(
            f"a session id has 1 to {SESSION_ID_BYTES_MAX} bytes, this one has {size}; "
            "mint ids with greenroom.new_session_id()"
        )


def is_session_id(session_id: str) -> bool:
    """Return whether a session can have this id; a cookie may hold any text.

    Raises UsageError if it is no str.
    """
    try:
        check_session_id(session_id)
    except UsageError:
        if not isinstance(session_id, str):
            raise
        return False
    return True


def digest_if_possible(session_id: str) -> bytes | None:
    """Return the 32 bytes that stand for this id, or None if no session can have it.

    Raises UsageError if it is no str.
    """
    try:
        if _MINTED.fullmatch(session_id) is not None:  # needs no other check
            # As `_digest` does, without the call: this is done for every operation.
            hashed = _blank.copy()
            hashed.update(session_id.encode())
            return hashed.digest()
    except TypeError:  # no str, as the check below tells
        pass
    try:
        return digest_of(session_id)
    except UsageError:
        if not isinstance(session_id, str):
            raise
        return None


def digest_of(session_id: str) -> bytes:
    """Return the 32 bytes that stand for this id. Raises UsageError if it is no session id."""
    check_session_id(session_id)
    return _digest(session_id)


def _digest(session_id: str) -> bytes:
    digest = _blank.copy()
    digest.update(session_id.encode())
    return digest.digest()


def point_of(session_id: str) -> int:
    """Return the routing point: the id's tag if it was minted here, else the digest's first 16 bits."""
    if _MINTED.fullmatch(session_id) is not None:
        return int(session_id[_POINT], 16)
    return int.from_bytes(digest_of(session_id)[:2], "big")


def locate(session_id: str) -> tuple[int, bytes]:
    """Return (point, digest) of this id. Raises UsageError if it is no session id."""
    digest = digest_of(session_id)
    return point_of(session_id), digest


def locate_if_possible(session_id: str) -> tuple[int, bytes] | None:
    """Return (point, digest) of this id, or None if no session can have it.

    Raises UsageError if it is no str.
    """
    try:
        minted = _MINTED.fullmatch(session_id)
    except TypeError:  # no str, as the check below tells
        minted = None
    if minted is not None:  # needs no other check
        # As `_digest` does, without the call: this is done for every operation.
        hashed = _blank.copy()
        hashed.update(session_id.encode())
        return int(session_id[_POINT], 16), hashed.digest()
    digest = digest_if_possible(session_id)
    return None if digest is None else (int.from_bytes(digest[:2], "big"), digest)


def listed_as(digest: bytes) -> bytes:
    """Return the 32 bytes by which lists name the session of a digest, without giving the digest away.

    The digest itself would do for a client to read the session. Its first four bytes are there: so lists have
    the order of digests, and a handle is looked for without hashing each session of its user. What follows a
    digest, in the keys of a cluster, is left out.
    """
    hashed = _blank_handle.copy()
    hashed.update(digest[:DIGEST_BYTES])
    return digest[:_HANDLE_ORDER_BYTES] + hashed.digest()


def is_listed_as(digest: bytes, listed: bytes) -> bool:
    """Whether lists name the session of a digest so; those of releases before gave the digest itself."""
    return digest[:_HANDLE_ORDER_BYTES] == listed[:_HANDLE_ORDER_BYTES] and (
        listed_as(digest) == listed or digest[:DIGEST_BYTES] == listed
    )


def handle_of(point: int, digest: bytes) -> str:
    """Return the handle of a session: it names the session to its owner, and is no secret."""
    return spelled_handle(point, listed_as(digest))


def spelled_handle(point: int, listed: bytes) -> str:
    """Return the handle of a session that a list names: 46 url-safe characters."""
    return base64.urlsafe_b64encode(point.to_bytes(2, "big") + listed).rstrip(b"=").decode()


def parse_handle(handle: str) -> tuple[int, bytes]:
    """Return the point in a handle, and what lists name the session. Raises UsageError if it is none."""
    if not isinstance(handle, str):
        raise UsageError(f"a session handle is a str, not {type(handle).__name__}")
    if _HANDLE.fullmatch(handle) is not None:
        raw = base64.urlsafe_b64decode(handle + "==")
        point, listed = int.from_bytes(raw[:2], "big"), raw[2:]
        if spelled_handle(point, listed) == handle:
            return point, listed
    raise UsageError("this is not a session handle; take one from SessionInfo.handle")
