"""The parts that all requests of one app share: its store, cookie, lifetimes, users and counts."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from greenroom.errors import StoreFullError, UsageError
from greenroom.fields import checked_present_user_id
from greenroom.sessions import BaseSessionStore
from greenroom.web.cookies import CANDIDATES_MAX, CROWD, CookieSettings, CookieSigner, may_be_signed
from greenroom.web.events import Events
from greenroom.web.lifetimes import USUAL, Lifetimes, Terms
from greenroom.web.old_sessions import OldSessions
from greenroom.web.refusals import Refusals

OnUnavailable: TypeAlias = Literal["closed", "anonymous"]
OnEnd: TypeAlias = Literal["close", "event"]
UserOfId: TypeAlias = Callable[[str], Any | Awaitable[Any]]

RETRY_SECONDS = 1
FULL_RETRY_SECONDS = 60
"""The least `Retry-After` where the store is full: room comes only as sessions end."""


class Users(NamedTuple):
    """Conversion between an app's users and user ids."""

    serialize: Callable[[Any], str] | None = None
    deserialize: UserOfId | None = None

    def id_of(self, user: Any) -> str:
        """Return the id of a user. Raises UsageError unless it is a str of 1 to 256 bytes."""
        user_id = user if self.serialize is None else self.serialize(user)
        if not isinstance(user_id, str):
            raise UsageError(
                f"login is given the id of a user, a str, not {type(user_id).__name__}; convert it, or give "
                "Session a serialize_user that does"
            )
        return checked_present_user_id(user_id)

    async def user_of(self, user_id: str | None) -> Any:
        """Return what `deserialize_user` makes of the id (the id itself without it); None for None."""
        if user_id is None or self.deserialize is None:
            return user_id
        user = self.deserialize(user_id)
        return await user if inspect.isawaitable(user) else user


class Keeping:
    """See the module. Times are microseconds since 1970 UTC."""

    store: BaseSessionStore
    cookie: CookieSettings
    persistent_max_age_seconds: int
    signer: CookieSigner
    lifetimes: Lifetimes
    users: Users
    events: Events
    refusals: Refusals
    moves_from: OldSessions | None
    clock: Callable[[], datetime]
    now_us: Callable[[], int]
    on_unavailable: OnUnavailable
    on_end: OnEnd
    end_code: int

    def verified(self, cookies: Sequence[bytes]) -> dict[str, Terms]:
        """Return the ids in the cookies that one of the secrets signed, and their terms.

        Not in the first few alone: another host can plant cookies before the right one, also signed ones of
        its own user. A request with more than any browser keeps is nobody's, so that its cost is bounded.
        """
        if len(cookies) == 1 and (only := self.signer.read(cookies[0])) is not None:
            return {only[0]: only[1]}  # the usual
        found: dict[str, Terms] = {}
        left = CANDIDATES_MAX
        for cookie in cookies:
            one = self.signer.read(cookie)
            if one is not None:
                found.setdefault(*one)
            else:
                self.events.count("refused_cookies")
                self.refusals.note(cookie)
                if not may_be_signed(cookie):
                    continue
            left -= 1
            if left < 0:
                self.events.crowded(self.cookie.name)
                return {}
        if len(found) > CROWD:
            self.events.crowded(self.cookie.name)
        return found

    def cookie_of(self, session_id: str, terms: Terms = USUAL) -> str:
        """Return the value of a Set-Cookie header that gives the browser this session."""
        signed = self.signer.sign(session_id, terms)
        if terms.persistent is None:
            return self.cookie.header(signed)
        return self.cookie.header(signed, self.persistent_max_age_seconds if terms.persistent else None)

    def retry_after(self, error: Exception | None) -> str:
        """Return the `Retry-After` of a 503 for this error."""
        return str(FULL_RETRY_SECONDS if isinstance(error, StoreFullError) else RETRY_SECONDS)
