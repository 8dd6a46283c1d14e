"""Cookies that no secret signed: each reason is logged once, since a client can send them without end.

Nothing of a cookie is logged. At the level DEBUG each refusal is logged with the handle of the session that
the cookie claims, so that a lost login can be found; a made-up cookie claims no real session.
"""

import logging
import re

from greenroom.web.traces import trace

_log = logging.getLogger("greenroom.web")

_OURS = re.compile(rb"gr-[0-9a-f]{4}-[A-Za-z0-9_-]{32}(?:\.i[0-9]{1,16})?(?:\.p[01])?\.[A-Za-z0-9_-]{43}")
_EMPTY = "it is empty"
_OTHER = (
    "it has not the form of one that is made here, so other software has set it (such as Starlette's own "
    "middleware, with another cookie_name= both can be used), or it was made up"
)
_OLD = (
    "it is none of a session that moves_from= can read: that has another secret than the old library had, or "
    "other software has set the cookie"
)
_FOREIGN = (
    "no secret of this process signed it for this cookie_name. All processes need the same secret= and "
    "cookie_name=; to replace a secret without logging users out, give both, secret=[new, old]"
)
_OTHER_RANDOM = (
    "another process has signed it, or this one before its last start: with dev=True and without secret= "
    "each signs with a random secret of its own. Give all the same secret="
)


class Refusals:
    """See the module. `random_secret`: this process made its secret itself.

    `moving`: the old library, whose sessions are moved, had a cookie of the same name.
    """

    def __init__(self, cookie_name: str, *, random_secret: bool, moving: bool = False) -> None:
        self._cookie_name = cookie_name
        self._other = _OLD if moving else _OTHER
        self._foreign = _OTHER_RANDOM if random_secret else _FOREIGN
        self._told: set[str] = set()

    def note(self, signed: bytes) -> None:
        """Log that this cookie was refused, if the reason was not logged yet."""
        reason = self._reason(signed)
        if reason not in self._told:
            self._told.add(reason)
            _log.warning(
                "a cookie %s was refused: %s (told once for each reason; all are counted as refused_cookies)",
                self._cookie_name,
                reason,
            )
        if reason is self._foreign:
            session_id = signed.partition(b".")[0].decode("ascii")
            trace(_log, session_id, "refused, because no secret of this process signed it")

    def _reason(self, signed: bytes) -> str:
        if not signed:
            return _EMPTY
        return self._foreign if _OURS.fullmatch(signed) is not None else self._other
