"""Which sessions a user has, the oldest first, in pages.

A user may have any number of sessions, so nothing here goes through all of them: adding or removing one takes
a search and a shift within a page, and a reader stops when it has enough.

The order is by time of creation, then by digest. The time is read from the session whenever digests are
compared: a copy of it beside each digest would take 80 bytes a session.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from greenroom.errors import InvariantError
from greenroom_cluster.shard.state.namespaces import Owner

PAGE_MAX = 512


class _Pages:
    """The digests of one user, in order; no page is empty."""

    __slots__ = ("pages", "size")

    def __init__(self, digests: list[bytes]) -> None:
        self.pages = [digests]
        self.size = len(digests)


class UserIndex:
    """Digests by user. `created_us(digest)` returns when the session of an entered digest was created.

    It must return the same from before a digest is entered until after it was removed.
    """

    __slots__ = ("_by_user", "_created_us", "entries")

    def __init__(self, created_us: Callable[[bytes], int]) -> None:
        self._created_us = created_us
        # A user with one session costs a dict entry; pages come with the second session.
        self._by_user: dict[Owner, bytes | _Pages] = {}
        self.entries = 0

    def add(self, user_id: Owner, digest: bytes) -> None:
        """Enter a session of the user, which must not be entered yet."""
        self.entries += 1
        known = self._by_user.get(user_id)
        if known is None:
            self._by_user[user_id] = digest
        elif isinstance(known, bytes):
            self._by_user[user_id] = _Pages(sorted((known, digest), key=self._order))
        else:
            known.size += 1
            order = self._order(digest)
            number, page = self._page_of(known, order)
            if order > self._order(page[-1]):  # the usual: it is the newest
                page.append(digest)
            else:
                page.insert(bisect_left(page, order, key=self._order), digest)
            if len(page) > PAGE_MAX:
                half = len(page) // 2
                known.pages.insert(number + 1, page[half:])
                del page[half:]

    def remove(self, user_id: Owner, digest: bytes) -> None:
        """Take a session out; raises InvariantError if it is not the user's."""
        self.entries -= 1
        known = self._by_user.get(user_id)
        if known == digest:
            del self._by_user[user_id]
            return
        if not isinstance(known, _Pages):
            raise InvariantError("a session is removed from a user who does not have it")
        number, page, place = 0, known.pages[0], 0  # where pages of a long command find it
        if page[place] != digest:
            order = self._order(digest)
            number, page = self._page_of(known, order)
            place = bisect_left(page, order, key=self._order)
            if place == len(page) or page[place] != digest:
                raise InvariantError("a session is removed from a user who does not have it")
        del page[place]
        known.size -= 1
        if not page:
            del known.pages[number]
        if known.size == 1:
            self._by_user[user_id] = known.pages[0][0]

    def count(self, user_id: Owner) -> int:
        """Return how many sessions the user has, including those that have expired but are not removed."""
        known = self._by_user.get(user_id)
        if known is None:
            return 0
        return known.size if isinstance(known, _Pages) else 1

    def newest(self, user_id: Owner) -> Iterator[bytes]:
        """Yield the digests of the user's sessions, the newest first; nothing may change meanwhile."""
        known = self._by_user.get(user_id)
        if known is None:
            return
        if not isinstance(known, _Pages):
            yield known
            return
        for page in reversed(known.pages):
            yield from reversed(page)

    def oldest(self, user_id: Owner) -> Iterator[bytes]:
        """Yield the same, the oldest first."""
        known = self._by_user.get(user_id)
        if isinstance(known, bytes):
            yield known
        elif known is not None:
            for page in known.pages:
                yield from page

    def _order(self, digest: bytes) -> tuple[int, bytes]:
        return self._created_us(digest), digest

    def _page_of(self, known: _Pages, order: tuple[int, bytes]) -> tuple[int, list[bytes]]:
        """Return the number and the page of a digest: the last page that does not begin after it."""
        pages = known.pages
        number = len(pages) - 1
        if number and order < self._order(pages[number][0]):
            number = bisect_right(pages, order, key=lambda page: self._order(page[0]))
            number = max(number - 1, 0)
        return number, pages[number]
