"""How a store of one file learns that sessions have ended which any process may end.

A file tells nobody what happens to it. So while anything is watched, the store looks 20 times a second
whether anything was written, which is one short read, and only then at the sessions that are watched, up to
`LOOKS_MAX` at a time. So up to that many are told at the next look, and more take another look for each as
many.
"""

from collections.abc import Awaitable, Callable

from greenroom.endings import UNKNOWN, Ended
from greenroom.local_watches import Group
from greenroom.sqlite.operations import Look, Seen
from greenroom.sqlite.rows import LOOKS_MAX

BEAT_SECONDS = 0.05


class WatchedRows(Group):
    """The watches of one event loop. `look` asks the file."""

    def __init__(self, look: Callable[[Look], Awaitable[Seen]]) -> None:
        super().__init__()
        self._look = look
        self._now_us = 0
        self._created_us: dict[bytes, int] = {}
        # What is left of this round; the newest version, and the one at which the round began.
        self._left: list[bytes] = []
        self._version = self._began_at = 0

    async def attend(self) -> None:
        """Look once, and tell who watches what is gone."""
        if not self._left and self._version != self._began_at:
            self._began_at = self._version
            self._left = list(self.ends_us)
        asked = self.due(self._now_us, LOOKS_MAX)
        room = LOOKS_MAX - len(asked)
        asked += [digest for digest in self._left[:room] if digest in self.ends_us]
        del self._left[:room]
        try:
            seen = await self._look(Look(tuple(asked)))
        except BaseException:
            self._left += asked
            raise
        self._version, self._now_us = seen.version, seen.now_us
        for digest in asked:
            self._note(digest, seen)
        if len(self._created_us) > 2 * len(self.ends_us) + LOOKS_MAX:
            self._created_us = {each: at for each, at in self._created_us.items() if each in self.ends_us}

    def _note(self, digest: bytes, seen: Seen) -> None:
        known_us = self.ends_us.get(digest)
        if known_us is None:  # nobody watches it any longer
            return
        ends_us, created_us = seen.found.get(digest, (known_us, -1))
        if ends_us > seen.now_us and created_us == self._created_us.setdefault(digest, created_us) >= 0:
            self.known(digest, ends_us)
            return
        self._created_us.pop(digest, None)
        self.tell(digest, Ended("expiry") if 0 < ends_us <= seen.now_us else UNKNOWN)
