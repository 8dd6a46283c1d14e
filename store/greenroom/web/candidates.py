"""The sessions that the cookies of one request name, and which of them is the request's.

A browser sends one cookie of a name for each path and domain on which it was set, so there may be several:
one left over, or one that another host of the domain has planted. Ids that the store does not know are
ignored. A stored session that cannot be read counts as none: pages must not fail for as long as it lives.
"""

from greenroom.errors import UnreadableSessionError
from greenroom.sessions import StoredSession
from greenroom.web.keeping import Keeping
from greenroom.web.lifetimes import USUAL, Terms
from greenroom.web.moving import Moving
from greenroom.web.state import Found
from greenroom.web.writes import may_be_sound


class Candidates:
    """See the module.

    `ids` are those of the cookies, and that of a session moved here, each with the terms of its session.
    `unreadable` are the ids of stored sessions that could not be read, `newer` tells whether one of them may
    be sound and is left to a later version. `refused` tells that there are sessions behind the cookies, none
    of which may be used, so that the browser is to forget them. `moving` deals with the sessions of the
    library that the app used before, if the request names some.
    """

    newer = False
    refused = False

    def __init__(self, keeping: Keeping, ids: dict[str, Terms], moving: Moving | None = None) -> None:
        self.ids = ids
        self.moving = moving
        self.unreadable: list[str] = []
        self._keeping = keeping

    def __bool__(self) -> bool:
        return bool(self.ids) or self.moving is not None

    async def find(self) -> Found | None:
        """Return the session of the request, or None.

        A user's session goes before an anonymous one, else the first; one of ours before one of the app's
        former library. If a browser sends sessions of two users, another host of its domain has planted one
        of them, and it is impossible to tell whose request this is. So it has no session, and both end;
        otherwise the next request would be made in the planter's name.
        """
        live: list[str] = []
        users: set[str] = set()
        chosen: Found | None = None  # no more are kept: each may be as large as a session can be
        for session_id in self.ids:
            try:
                # As `read` does, without another coroutine: most requests come by here, and go no further.
                stored = await self._keeping.store.get_stored(session_id)
                current = self._opened(stored)
            except UnreadableSessionError as error:
                self._note_unreadable(session_id, error)
                continue
            if current is None:
                self._keeping.events.unknown(session_id)
                continue
            if self.moving is not None:
                self.moving.forget(session_id)
            user_id = current[0].user_id
            if len(self.ids) == 1 and (self.moving is None or user_id is not None):
                return current  # the usual
            live.append(session_id)
            if chosen is None or (user_id is not None and not users):
                chosen = current
            if user_id is not None:
                users.add(user_id)
        if len(users) > 1:
            self._keeping.events.contested()
            for session_id in live:
                await self._delete(session_id, "a request brought sessions of several users")
            self.refused = True
            return None
        self.refused = chosen is None and bool(self.unreadable) and not self.newer
        if self.moving is None or self.unreadable or users:
            return chosen
        # Behind an anonymous session of ours the old library may have a login: of a server that is older yet.
        moved = await (self.moving.find() if chosen is None else self.moving.find_login())
        if moved is None:
            return chosen
        self.ids[moved[0].session_id] = self.moving.terms
        return moved

    async def read(self, session_id: str) -> Found | None:
        """Return a session and its data; None if there is none, or it cannot be read."""
        try:
            return self._opened(await self._keeping.store.get_stored(session_id))
        except UnreadableSessionError as error:
            self._note_unreadable(session_id, error)
            return None

    def _opened(self, stored: StoredSession | None) -> Found | None:
        self._keeping.events.counts["loads"] += 1
        return None if stored is None else (stored, stored.decoded())

    def _note_unreadable(self, session_id: str, error: UnreadableSessionError) -> None:
        keeping = self._keeping
        keeping.events.unreadable(error)
        self.unreadable.append(session_id)
        self.newer = self.newer or may_be_sound(error, keeping.now_us(), self._idle_us(session_id))

    async def end_unreadable(self) -> None:
        """Delete what could not be read, before the browser gets the id of another session."""
        while self.unreadable:
            await self._delete(self.unreadable[-1], "it cannot be read, and the browser gets another")
            self.unreadable.pop()
        self.newer = False

    async def end(self, but: str | None) -> None:
        """Delete all but the one that is ended already: one left over would log the browser in again."""
        for session_id in tuple(self.ids):
            if session_id != but:
                await self._delete(session_id, "its browser sent it beside the one that was ended")
        self.ids, self.unreadable, self.newer = {}, [], False
        if self.moving is not None:
            await self.moving.settle(for_good=True)

    def forget(self, session_id: str) -> None:
        """Take note that a session is no longer to be found under this id."""
        self.ids.pop(session_id, None)

    def terms_of(self, session_id: str) -> Terms:
        """Return the terms of one of these sessions."""
        return self.ids.get(session_id, USUAL)

    def _idle_us(self, session_id: str) -> int:
        return self._keeping.lifetimes.under(self.terms_of(session_id)).idle_us

    async def _delete(self, session_id: str, why: str) -> None:
        await self._keeping.store.delete(session_id)
        self._keeping.events.count("deletes")
        self._keeping.events.trace(session_id, f"ended: {why}")
