"""What one request knows of its session and was asked to do with it, before any of it is done. Pure.

A handler asks by methods of its session; here each becomes a mark, and nothing else happens. `plan` makes of
the marks, and of the data that the handler left, what is to be written.
"""

from typing import Any, TypeAlias

from greenroom.codec import encode_data
from greenroom.sessions import StoredSession
from greenroom.web.lifetimes import USUAL, Terms

EMPTY = encode_data({})

Found: TypeAlias = tuple[StoredSession, dict[Any, Any]]
"""A session as it is stored, and its data."""


class VisitState:
    """See the module. A change of one of its marks has no effect before the next save.

    - `stored`: the session as it is stored, as far as this request knows; `snapshot` is its data, encoded.
    - `terms`: what a login has asked for the stored session; `login_terms`: what one in this request asks.
    - `lost`: it turned out that others deleted or rotated it while this request ran.
    - `logged_in_by_twin`: it lives on under another id, for the user whom this request logs in: the form was
      sent twice.
    - `dropped`: the data that came too late, once that has been counted.
    - `session`: what the handler works with, a dict. `touched` tells that somebody changed it, or got it
      while it holds what may be changed at any time.
    - `cookie`: the value of a Set-Cookie header that the browser is still to get.
    - `started`: the response has begun, so no cookie can be sent any more.
    - `mute`: nor could one before, since the server would drop it.
    - `has_cookie`: the browser holds a session cookie, as far as is known.
    - `user_id`: who is to be logged in after the save.
    - `ending`: the stored session is to end; what `session` holds goes into a new one.
    - `rotating`: it is to get a new id. `logging_in`: and somebody logs in, whatever becomes of it.
    - `login_data`: what the login was given.
    - `everywhere`: the user whose sessions are to end, and whether this one is kept.
    - `extension_failed`: to move its end is left to the next request.
    """

    stored: StoredSession | None = None
    snapshot = EMPTY
    terms: Terms = USUAL
    login_terms: Terms = USUAL
    login_data: dict[Any, Any] | None = None
    lost = False
    logged_in_by_twin = False
    dropped: bytes | None = None
    touched = False
    cookie: str | None = None
    started = False
    mute = False
    has_cookie = False
    user_id: str | None = None
    ending = False
    rotating = False
    logging_in = False
    everywhere: tuple[str, bool] | None = None
    extension_failed = False

    def __init__(self, session: dict[Any, Any]) -> None:
        self.session = session

    @property
    def is_stored(self) -> bool:
        """Whether there is a session in the store, as far as this request knows."""
        return self.stored is not None and not self.lost and not self.ending

    @property
    def is_asked(self) -> bool:
        """Whether the handler asked for more than the data to be kept."""
        return self.ending or self.rotating or self.everywhere is not None

    def contents(self) -> dict[Any, Any]:
        """Return what the session holds as a plain dict, past the methods by which handlers look."""
        return dict(dict.items(self.session))

    def replace_contents(self, data: dict[Any, Any]) -> None:
        """Make this what the session holds."""
        dict.clear(self.session)
        dict.update(self.session, data)

    def note_login(self, user_id: str, data: dict[Any, Any], terms: Terms = USUAL) -> None:
        """Log this user in, with this data on top; the data of another who was logged in goes."""
        if self.user_id not in (None, user_id):
            dict.clear(self.session)
        dict.update(self.session, data)
        self.user_id = user_id
        self.login_terms, self.login_data = terms, data
        self.rotating = self.logging_in = True

    def note_logout(self) -> None:
        """End the session; what is set from now on belongs to another one, of nobody."""
        self.ending = True
        self.rotating = self.logging_in = False
        self.user_id = None
        dict.clear(self.session)

    def forget_wishes(self) -> None:
        """Ask for nothing any more."""
        self.ending = self.rotating = self.logging_in = False
        self.everywhere = None
