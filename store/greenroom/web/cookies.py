"""The session cookie: its attributes, its signature, and how to find it among a browser's cookies.

A cookie holds the session's id and an HMAC-SHA256 of it, made by itsdangerous and compared in constant time.
The signature keeps made-up ids away from the store; it is the id's 192 random bits that protect a session.

The cookie is sent when a session gets its id, and never again for that id: otherwise a slow response would
bring an old id back over the id of a later login. So the store, not the cookie, knows when the session ends.
The cookie ends with the browser, or, if `persistent`, as late as browsers allow. After the id, and signed
with it, come the terms that its login has asked for: see `lifetimes`.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from itsdangerous import Signer

from greenroom.errors import UsageError
from greenroom.fields import UNCHANGED, Unchanged
from greenroom.ids import SESSION_ID_BYTES_MAX
from greenroom.options import COOKIE
from greenroom.web.lifetimes import USUAL, Terms, parted

SameSite = Literal["lax", "strict", "none"]

PERSISTENT_SECONDS = 400 * 24 * 3600
"""The longest Max-Age that browsers keep."""
PARTS_MAX = 1024
"""The most parts of a request's headers that contain the name to look at, in search of the cookie."""
CANDIDATES_MAX = 256
"""The most cookies to verify. A browser keeps some 180 of all names for one site, so it never sends more."""
CROWD = 8
"""More cookies than this, all signed by this app, mean that another host has planted some."""
READ_MAX = 4096
"""The number of cookies whose verified contents each signer remembers: some 2 MB at most."""

_SPACES = b" \t"
_SIGNATURE_BYTES = 43
_DOT_AT = slice(-_SIGNATURE_BYTES - 1, -_SIGNATURE_BYTES)
_SIGNED_BYTES_MAX = SESSION_ID_BYTES_MAX + 64
_PREFIXES = ("__secure-", "__host-", "__http-")  # __Host-Http- begins with the second


@dataclass(slots=True, frozen=True, kw_only=True)
class CookieSettings:
    """The attributes of a session cookie. Always HttpOnly. Raises UsageError if browsers would refuse it."""

    name: str = "session"
    path: str = "/"
    domain: str | None = None
    same_site: SameSite = "lax"
    secure: bool = True
    partitioned: bool = False
    max_age_seconds: int | None = None

    def __post_init__(self) -> None:
        COOKIE.check(**{each: getattr(self, each) for each in self.__slots__})
        if not self.secure:
            if self.same_site == "none":
                raise UsageError('browsers refuse a cookie with same_site="none" that is not secure')
            if self.partitioned:
                raise UsageError("browsers refuse a partitioned cookie that is not secure")
            if has_prefix(self.name):
                raise UsageError(
                    f"browsers refuse the cookie name {self.name!r} unless it is secure: leave the prefix "
                    "out, which host_prefix adds wherever browsers allow it"
                )
        if self.partitioned and self.same_site != "none":
            raise UsageError(
                "partitioned is for pages that other sites show in a frame, where browsers send only cookies "
                f'with same_site="none"; this one has same_site="{self.same_site}"'
            )
        if has_host_prefix(self.name) and (self.path != "/" or self.domain is not None):
            raise UsageError(
                'a cookie with the prefix __Host- has path="/" and no domain: leave these out, or the prefix'
            )

    def header(self, signed: str, max_age_seconds: int | Unchanged | None = UNCHANGED) -> str:
        """Return the value of a Set-Cookie header that stores this, with another Max-Age if one is given."""
        seconds = self.max_age_seconds if max_age_seconds is UNCHANGED else max_age_seconds
        age = "" if seconds is None else f"; Max-Age={seconds}"
        return f"{self.name}={signed}{age}{self._attributes()}"

    def clearing_header(self) -> str:
        """Return the value of a Set-Cookie header that removes the cookie."""
        expired = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return f"{self.name}={expired}{self._attributes()}"

    def _attributes(self) -> str:
        parts = [f"; Path={self.path}"]
        if self.domain is not None:
            parts.append(f"; Domain={self.domain}")
        parts.append(f"; HttpOnly; SameSite={self.same_site.capitalize()}")
        if self.secure:
            parts.append("; Secure")
        if self.partitioned:
            parts.append("; Partitioned")
        return "".join(parts)


def has_prefix(name: str) -> bool:
    """Return whether browsers reserve this name for Secure cookies; its case does not matter."""
    return name.lower().startswith(_PREFIXES)


def has_host_prefix(name: str) -> bool:
    """Return whether browsers reserve this name for cookies of a single host."""
    return name.lower().startswith("__host-")


def name_of(
    name: str,
    host_prefix: bool | None,  # noqa: FBT001  an option, as `Session` got it
    path: str,
    domain: str | None,
    *,
    secure: bool,
    dev: bool,
) -> str:
    """Return a cookie's name with `__Host-` if that is asked for, or by default where browsers allow it.

    Raises UsageError where `host_prefix` contradicts another option.
    """
    if host_prefix is None:
        host_prefix = path == "/" and domain is None and not has_prefix(name)
    elif not host_prefix:
        if has_host_prefix(name):
            raise UsageError("host_prefix=False contradicts cookie_name, which has the prefix: leave one out")
    else:
        against = [
            *(["secure=False"] if not (secure or dev) else []),
            *(["path"] if path != "/" else []),
            *(["domain"] if domain is not None else []),
            *(
                ["cookie_name, which has another prefix,"]
                if has_prefix(name) and not has_host_prefix(name)
                else []
            ),
        ]
        if against:
            raise UsageError(
                f"host_prefix=True contradicts {' and '.join(against)}: browsers take a cookie with the "
                'prefix __Host- only if it is Secure, with path="/" and no domain. Leave one or the other out'
            )
    return f"__Host-{name}" if host_prefix and secure and not has_host_prefix(name) else name


class CookieSigner:
    """Signs ids with the first secret and verifies with all. `purpose` separates cookies of equal secrets."""

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        self._purpose = purpose
        self._keys: list[bytes] = []
        self.replace(secrets)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def replace(self, secrets: Sequence[str]) -> bool:
        """Use these secrets from now on; return whether they are others than before."""
        signer = Signer(
            list(reversed(secrets)),  # itsdangerous signs with the last
            salt=f"greenroom.web.{self._purpose}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        # It derives its keys anew for each cookie, which takes longer than everything else about one.
        keys = [signer.derive_key(secret) for secret in reversed(signer.secret_keys)]
        if keys == self._keys:
            return False
        self._keys = keys
        # A browser sends the same cookie with each request, and under the same keys the result is the same.
        self._read = lru_cache(READ_MAX)(partial(_verified, keys))
        return True

    def sign(self, session_id: str, terms: Terms = USUAL) -> str:
        """Return the signed value of the cookie, as itsdangerous makes it."""
        text = session_id + terms.text()
        return f"{text}.{_signature(self._keys[0], text.encode()).decode()}"

    def verify(self, signed: bytes) -> str | None:
        """Return the id if one of the secrets signed it, else None. Never raises, whatever the bytes."""
        found = self.read(signed)
        return None if found is None else found[0]

    def read(self, signed: bytes) -> tuple[str, Terms] | None:
        """Return the id and its terms if one of the secrets signed them, else None. Never raises."""
        return None if len(signed) > _SIGNED_BYTES_MAX else self._read(signed)


def _verified(keys: Sequence[bytes], signed: bytes) -> tuple[str, Terms] | None:
    if not may_be_signed(signed):
        return None
    value, _, signature = signed.rpartition(b".")
    for key in keys:
        if hmac.compare_digest(signature, _signature(key, value)):
            return parted(value.decode("ascii")) if value.isascii() else None
    return None


def may_be_signed(value: bytes) -> bool:
    """Return whether a cookie's value has the form of a signed one, so that verifying it takes an HMAC."""
    return len(value) <= _SIGNED_BYTES_MAX and value[_DOT_AT] == b"."


def _signature(key: bytes, value: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, value, "sha256")).rstrip(b"=")


class CookieName:
    """Finds the cookies of one name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wanted = name.encode("ascii")
        self._usual = re.compile(b"(?:^|; )" + re.escape(self._wanted) + rb"=([A-Za-z0-9._-]+)(?:;|$)").search

    def values(self, headers: Sequence[bytes | str]) -> list[bytes]:
        """Return the values of the cookies of this name in these Cookie headers, as `cookie_values`."""
        if len(headers) == 1 and type(header := headers[0]) is bytes and header.count(self._wanted) == 1:
            found = self._usual(header)
            if found is not None:
                return [found[1]]
        return cookie_values(headers, self._name)


def cookie_values(headers: Sequence[bytes | str], name: str) -> list[bytes]:
    """Return the values of the cookies of this name in these Cookie headers, in order, each once.

    All of them: any of them may be the one that counts, and only its signature tells which.
    """
    wanted = name.encode("ascii")
    found: dict[bytes, None] = {}
    left = PARTS_MAX
    for header in headers:
        raw = header.encode("utf-8", "surrogateescape") if isinstance(header, str) else header
        # By the name, not by splitting at semicolons: a megabyte of those would hold up the event loop.
        begin = 0
        while left and (at := raw.find(wanted, begin)) >= 0:
            left -= 1
            start = raw.rfind(b";", begin, at) + 1 or begin
            end = raw.find(b";", at)
            end = len(raw) if end < 0 else end
            key, equals, value = raw[start:end].partition(b"=")
            begin = end + 1
            # Nothing else than what browsers take for space is cut off: a name that they would not protect
            # must not turn into one that they do.
            if not equals or key.strip(_SPACES) != wanted:
                continue
            value = value.strip(_SPACES)
            if len(value) > 1 and value[:1] == value[-1:] == b'"':
                value = value[1:-1]
            found[value] = None
    return list(found)
