"""Long commands in pages: logging a user with many sessions out everywhere, cleaning a shard with many.

Applied at once, such a command would block its actor, and then the backup's, as long as it takes. So the
primary first logs pages, one at a time, each with a bounded number of removals. When little is left, it logs
the command itself, which decides: its reply is kept, and also counts what the pages removed.

A page consists of records that every version can apply. It removes a user's sessions by their handles, which
spares a session that belongs to another user by then, and expired sessions by an `Expire`.

A user may go on logging in meanwhile, faster than pages remove sessions. So the oldest go first, and pages
end when as many were removed as there were at the beginning. The command removes the rest in one step. If
that is much, but not so much that pages fall behind, it takes another round of pages.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from greenroom import wire
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Command, Expire, Within
from greenroom_cluster.shard.state.stored import expiry_of
from greenroom_cluster.shard.state.table import SessionTable

UNDER_WAY_MAX = 16
LOOKS_PER_REMOVAL = 8
"""Removing a session costs as much as checking this many for expiry."""

Long: TypeAlias = wire.DeleteByUser | wire.Clean
LONG = frozenset({wire.DeleteByUser, wire.Clean})


class LongCommand:
    """A command that is carried out in pages. `through` is the last sequence number of its newest page."""

    __slots__ = (
        *("_round", "_round_end", "_unseen", "_within"),
        *("client", "command", "removed", "taken", "through"),
    )

    def __init__(
        self, client: bytes, command: Long, table: SessionTable, within: Within | None = None
    ) -> None:
        self.client = client
        self.command = command
        self._within = within
        self.removed = 0
        self.through = 0
        # Digests of sessions that pages remove, for a log-out.
        self.taken: set[bytes] = set()
        # How many sessions the pages of this round are to take, and how many they will have taken at its end.
        self._round = table.users.count(command.user_id) if isinstance(command, wire.DeleteByUser) else 0
        self._round_end = self._round
        # Digests to look at, for a clean.
        named = b"" if within is None else within.namespace.encode()
        seen = table.sessions if type(command) is wire.Clean else ()
        self._unseen: Iterator[bytes] = iter([key for key in seen if key[DIGEST_BYTES:] == named])

    def next_page(
        self, table: SessionTable, time_us: int, sequence: int, page_max: int
    ) -> tuple[list[Command], int]:
        """Return what to log next, from `sequence` on, and its cost in removals; no commands at the end."""
        command = self.command
        if isinstance(command, wire.Clean):
            return self._over(table, time_us, page_max)
        if not self._goes_on(table.users.count(command.user_id), page_max):
            return [], 0
        others = (digest for digest in table.users.oldest(command.user_id) if digest != command.keep)
        digests = list(islice(others, page_max))
        self.taken.update(digests)
        # Pages have no client: a reply that is kept for one is dropped by the next, which has a later id.
        user_id: Any = command.user_id
        if self._within is not None:  # by keys it is a pair
            user_id = user_id[1]
        return [
            self._logged(wire.DeleteByHandle(number, number, 0, 0, digest[:DIGEST_BYTES], user_id))
            for number, digest in enumerate(digests, sequence)
        ], len(digests)

    def _logged(self, command: wire.DeleteByHandle | Long) -> Command:
        return command if self._within is None else Within(self._within.namespace, command)

    def _goes_on(self, left: int, page_max: int) -> bool:
        """Whether a log-out has another page. Rounds end: each is at most half as long as the one before."""
        if left <= page_max:
            return False
        if len(self.taken) >= self._round_end:
            if left > self._round // 2:
                return False
            self._round = left
            self._round_end = len(self.taken) + left
        return True

    def _over(self, table: SessionTable, time_us: int, page_max: int) -> tuple[list[Command], int]:
        sessions, cost = table.sessions, 0
        while cost < page_max:
            seen = list(islice(self._unseen, page_max))
            if not seen:
                break
            cost += -(-len(seen) // LOOKS_PER_REMOVAL)
            over = tuple(
                digest
                for digest in seen
                if (stored := sessions.get(digest)) is not None and expiry_of(stored) <= time_us
            )
            if over:
                return [Expire(over)], cost + len(over)
        return [], cost if cost >= page_max else 0

    def last(self) -> Command:
        """Return the command itself, as it is logged when its pages are done."""
        command = self.command if self._within is None else self._within.command
        return self._logged(msgspec.structs.replace(command, removed=self.removed))  # type: ignore[arg-type]  # it is a long one


class Paging:
    """The long commands of one primary that are under way."""

    __slots__ = ("_pages", "_settings", "_table", "under_way")

    def __init__(self, table: SessionTable, settings: HostSettings) -> None:
        self._table = table
        self._settings = settings
        self.under_way: list[LongCommand] = []
        # By sequence number of each record of a page.
        self._pages: dict[int, LongCommand] = {}

    def needed(self, command: Long) -> bool:
        """Whether a command is too long to be applied at once."""
        if isinstance(command, wire.DeleteByUser):
            return self._table.users.count(command.user_id) > self._settings.page_max
        return len(self._table.sessions) > self._settings.page_max * LOOKS_PER_REMOVAL

    def refusal(self, command: Long) -> wire.Overloaded | None:
        """Return why a long command cannot begin now, None if it can."""
        if len(self.under_way) >= UNDER_WAY_MAX:
            return wire.Overloaded(command.request_id, "too many log-outs of users with many sessions")
        for each in self.under_way:
            if isinstance(command, wire.Clean):
                if isinstance(each.command, wire.Clean):
                    return wire.Overloaded(command.request_id, "this shard is being cleaned already")
            elif isinstance(each.command, wire.DeleteByUser) and each.command.user_id == command.user_id:
                return wire.Overloaded(command.request_id, "the user is being logged out everywhere already")
        return None

    def takes(self, digest: bytes) -> bool:
        """Whether pages remove the session of this digest; the command would also remove a new one."""
        return any(digest in each.taken for each in self.under_way)

    def begin(self, client: bytes, command: Long, within: Within | None = None) -> None:
        """Carry a command out in pages; `within` is what is logged of another namespace."""
        self.under_way.append(LongCommand(client, command, self._table, within))

    def ready(self, committed: int) -> Sequence[LongCommand]:
        """Return the commands whose pages so far are applied."""
        return [each for each in self.under_way if each.through <= committed]

    def sent(self, command: LongCommand, first: int, last: int) -> None:
        """Note that a page was logged as these records."""
        command.through = last
        for sequence in range(first, last + 1):
            self._pages[sequence] = command

    def applied(self, sequence: int, removed: int) -> None:
        """Note how many sessions a record removed."""
        command = self._pages.pop(sequence, None)
        if command is not None:
            command.removed += removed

    def end(self, command: LongCommand) -> None:
        """Forget a command whose pages are all applied."""
        self.under_way.remove(command)
