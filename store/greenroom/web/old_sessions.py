"""Sessions of another library, as `Session(moves_from=...)` reads them on the day of the switch.

Readers for libraries are in `greenroom.integrations.moving`; one of your own is a subclass of `OldSessions`
with `key_of`, `read` and, where the old store keeps anything, `end`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from greenroom.errors import UsageError
from greenroom.options import OLD_SESSIONS
from greenroom.web.cookies import CookieSettings, CookieSigner, has_prefix
from greenroom.web.lifetimes import USUAL, Terms

LIFETIME_SECONDS = 14 * 86_400
"""The lifetime of sessions in Starlette, Litestar and most apps on starsessions, by default."""

UserOfData: TypeAlias = Callable[[dict[Any, Any]], str | int | None]
CookieValues: TypeAlias = Callable[[str], list[bytes]]
"""A function that returns the values of the request's cookies of a name."""


class OldSession(msgspec.Struct, frozen=True, kw_only=True):
    """One session of the old library. Its repr shows none of it.

    `expires` is when it ends there, `created` when it began; None if the old library does not know. `user_id`
    is the user who was logged in, if the store knows; else the reader's `user` finds it in the data.
    """

    data: dict[Any, Any]
    user_id: str | None = None
    created: datetime | None = None
    expires: datetime | None = None
    absolute_expires: datetime | None = None
    label: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class OldSessions(ABC):
    """The base class of readers of another library's sessions.

    - `cookie_name`, `path`, `domain`: the old cookie, as it was set. With another path or domain it cannot be
      removed.
    - `lifetime_seconds`: how long an old session lives at most. Greenroom remembers for that long which ones
      have moved.
    - `user`: returns the id of the user who is logged in, given the data of an old session, or None.

    Raises UsageError for invalid options.
    """

    def __init__(
        self,
        *,
        cookie_name: str = "session",
        path: str = "/",
        domain: str | None = None,
        lifetime_seconds: float = LIFETIME_SECONDS,
        user: UserOfData | None = None,
    ) -> None:
        checked = OLD_SESSIONS.checked
        name: str = checked("cookie_name", cookie_name)
        self.cookie = CookieSettings(
            name=name, path=checked("path", path), domain=checked("domain", domain), secure=has_prefix(name)
        )
        self.lifetime_seconds: float = checked("lifetime_seconds", lifetime_seconds)
        self._user: UserOfData | None = checked("user", user)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cookie.name!r}>"

    def used_by(self, cookie: CookieSettings, signer: CookieSigner) -> None:
        """Note the cookie of the `Session` that moves sessions from here, and its signer."""
        return

    def keys(self, cookies: CookieValues) -> list[str]:
        """Return the keys of a request's old sessions. Asks no store."""
        keys = (self.key_of(value) for value in cookies(self.cookie.name))
        return [key for key in keys if key is not None]

    def cookies_to_clear(self, cookies: CookieValues) -> list[CookieSettings]:
        """Return the cookies to remove from a browser once its session has moved."""
        return [self.cookie]

    def user_of(self, old: OldSession) -> str | None:
        """Return the id of the user who is logged in there, or None. Raises UsageError for a bad `user`."""
        if self._user is None:
            return old.user_id
        try:
            found = self._user(old.data)
        except Exception as error:
            raise UsageError(
                f"user= of moves_from raised {type(error).__name__} for the data of an old session; it is "
                "given those of visitors who are not logged in too, and returns None for them"
            ) from error
        if found is None or found == "":
            return None
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise UsageError(
                f"user= of moves_from returned a {type(found).__name__}; it returns the id of a user, a str "
                "or an int, or None"
            )
        return str(found)

    def terms_of(self, key: str) -> Terms:
        """Return what the login of the session of this key asked for itself."""
        return USUAL

    @abstractmethod
    def key_of(self, value: bytes) -> str | None:
        """Return the key of the session of a cookie with this value; None if the old library did not set it.

        Anyone who knows the key holds the session, so it must be a secret, such as the value itself.
        """

    @abstractmethod
    async def read(self, key: str) -> OldSession | None:
        """Return the session of this key, or None if there is none or it has ended."""

    async def end(self, key: str) -> None:
        """Delete the session of this key from the old store. That there is none is fine."""
        return
