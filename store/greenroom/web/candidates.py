"""The sessions that the cookies of one request name, and which of them is the request's.

A browser sends one cookie of a name for each path and domain on which it was set, so there may be several:
one left over, or one that another host of the domain has planted. What the store does not know counts for
nothing. What it holds and cannot be read is no session either: no page may fail for as long as that lives.
"""

from typing import TYPE_CHECKING

from greenroom.errors import UnreadableSessionError
from greenroom.sessions import SessionData
from greenroom.web.records import deleted, found, may_be_sound

if TYPE_CHECKING:
    from greenroom.web.session import Session


class Candidates:
    """See the module.

    `unreadable` are the ids of stored sessions that could not be read, `newer` tells whether one of them may
    be sound and is left to a later version. `refused` tells that there are sessions behind the cookies, none
    of which may be used, so that the browser is to forget them.
    """

    def __init__(self, settings: "Session", ids: list[str]) -> None:
        self.ids = ids
        self.unreadable: list[str] = []
        self.newer = False
        self.refused = False
        self._settings = settings

    def __bool__(self) -> bool:
        return bool(self.ids)

    async def find(self) -> tuple[SessionData, bytes] | None:
        """Return the session of the request and its data as bytes, or None.

        That of a user goes before an anonymous one, else the first. A browser that sends the sessions of two
        users was given one of them by another host of its domain, and whose request this is cannot be told:
        so it is nobody's, and both end, or the next request would be made in the planter's name.
        """
        live = []
        for session_id in self.ids:
            current = await self.read(session_id)
            if current is not None:
                live.append(current)
            elif session_id not in self.unreadable:
                self._settings.count("unknown_ids")
        of_users = [each for each in live if each[0].user_id is not None]
        if len({record.user_id for record, _ in of_users}) > 1:
            self._settings.contested()
            for record, _ in live:
                await deleted(self._settings, record.session_id)
            self.refused = True
            return None
        chosen = next(iter(of_users or live), None)
        self.refused = chosen is None and bool(self.unreadable) and not self.newer
        return chosen

    async def read(self, session_id: str) -> tuple[SessionData, bytes] | None:
        """Return a session and its data as bytes; None if there is none, or it cannot be read."""
        try:
            return await found(self._settings, session_id)
        except UnreadableSessionError as error:
            settings = self._settings
            settings.unreadable(error)
            self.unreadable.append(session_id)
            self.newer = self.newer or may_be_sound(error, settings.clock(), settings.idle_seconds)
            return None

    async def end_unreadable(self) -> None:
        """Delete what could not be read, before the browser gets the id of another session."""
        while self.unreadable:
            await deleted(self._settings, self.unreadable[-1])
            self.unreadable.pop()
        self.newer = False

    async def end(self, but: str | None) -> None:
        """Delete all but the one that is ended already: one left over would log the browser in again."""
        for session_id in self.ids:
            if session_id != but:
                await deleted(self._settings, session_id)
        self.ids, self.unreadable, self.newer = [], [], False
