"""The state of one request's session: what is known of it, and what the handler requested. Pure.

Each request of the handler sets a mark here and does nothing else. `plan` derives what to write from the
marks, and from the data that the handler left.
"""

from typing import Any, TypeAlias

from greenroom.codec import decode_data, encode_data
from greenroom.sessions import StoredSession
from greenroom.web.lifetimes import USUAL, Terms
from greenroom.web.survival import Kept, after_login

EMPTY = encode_data({})

Found: TypeAlias = tuple[StoredSession, dict[Any, Any]]
"""A session as it is stored, and its data."""


class VisitState:
    """See the module. A mark takes effect with the next save.

    - `stored`: the session as it is stored, as far as this request knows; `snapshot` is its data, encoded.
    - `base`: the data that was loaded, encoded: whatever differs from it is of this request.
    - `terms`: what its login requested for the stored session; `login_terms`: what a login in this request
      does.
    - `lost`: another request deleted or rotated it while this one ran.
    - `logged_in_by_twin`: it lives on under another id for the user logging in here: the form was sent twice.
    - `dropped`: the data that came too late and has been counted as dropped.
    - `session`: the dict that the handler works with. `touched`: it was changed, or handed out with nested
      values, which may change at any time.
    - `cookie`: the value of a Set-Cookie header that is still to be sent.
    - `started`: the response has begun, so no cookie can be sent any more.
    - `mute`: no cookie could be sent before either, since the server would drop it.
    - `has_cookie`: the browser holds a session cookie, as far as is known.
    - `user_id`: the user who will be logged in after the save.
    - `ending`: the stored session is to end; what `session` holds goes into a new one.
    - `rotating`: it is to get a new id. `logging_in`: for a login, which counts even if the session is lost.
    - `login_data`: the data passed to the login. `login_kept`: the keys of an anonymous session that survive
      it; None for all.
    - `everywhere`: the user whose sessions are to end, and whether this one is kept.
    - `extension_failed`: moving its expiry is left to the next request.
    """

    stored: StoredSession | None = None
    snapshot = EMPTY
    base = EMPTY
    terms: Terms = USUAL
    login_terms: Terms = USUAL
    login_data: dict[Any, Any] | None = None
    login_kept: Kept = None
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
        """Whether the handler requested anything beyond saving the data."""
        return self.ending or self.rotating or self.everywhere is not None

    def contents(self) -> dict[Any, Any]:
        """Return the session's contents as a plain dict, without noting that anyone looked."""
        return dict(dict.items(self.session))

    def replace_contents(self, data: dict[Any, Any]) -> None:
        """Replace the session's contents."""
        dict.clear(self.session)
        dict.update(self.session, data)

    def note_login(self, user_id: str, data: dict[Any, Any], terms: Terms = USUAL, kept: Kept = None) -> None:
        """Log this user in and add this data, after dropping what another user, or no one, has left."""
        if self.user_id is None:
            self.login_kept = kept
            if kept is not None:
                loaded = {} if self.stored is None or self.ending else decode_data(self.base)
                self.replace_contents(after_login(self.contents(), loaded, kept))
        elif self.user_id != user_id:
            dict.clear(self.session)
        dict.update(self.session, data)
        self.user_id = user_id
        self.login_terms, self.login_data = terms, data
        self.rotating = self.logging_in = True

    def note_logout(self) -> None:
        """End the session; what is set from now on goes into a new, anonymous one."""
        self.ending = True
        self.rotating = self.logging_in = False
        self.user_id = None
        dict.clear(self.session)

    def forget_wishes(self) -> None:
        """Withdraw every request."""
        self.ending = self.rotating = self.logging_in = False
        self.everywhere = None
