"""Long commands in pages: a log-out everywhere of a user with many sessions, a clean of a shard with many.

Applied at once, such a command would stop its actor, and then the backup's, for as long as it takes. So the
primary logs pages first, one at a time, each with a bounded number of removals. The command itself is logged
when little is left, and decides: its reply is kept, and counts what the pages removed as well.

A page holds records that every version can apply. It removes a user's sessions by their handles, which spares
one that has gone to another user by then, and those that are over by an `Expire`.

A user may go on logging in meanwhile, faster than pages take sessions away. So the oldest go first, and pages
end when as many were removed as there were at the beginning. What has come since is removed by the command,
in one step; where it is much, but little enough that pages keep up, it goes in pages too.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Command, Expire
from greenroom_cluster.shard.state.stored import expiry_of
from greenroom_cluster.shard.state.table import SessionTable

UNDER_WAY_MAX = 16
LOOKS_PER_REMOVAL = 8
"""To look whether a session is over costs so much less than to remove one."""

Long: TypeAlias = wire.DeleteByUser | wire.Clean
LONG = frozenset({wire.DeleteByUser, wire.Clean})


class LongCommand:
    """One command that is carried out in pages. `through` is the sequence number of its newest page's end."""

    __slots__ = ("_round", "_round_end", "_unseen", "client", "command", "removed", "taken", "through")

    def __init__(self, client: bytes, command: Long, table: SessionTable) -> None:
        self.client = client
        self.command = command
        self.removed = 0
        self.through = 0
        # Digests of sessions that pages remove, for a log-out.
        self.taken: set[bytes] = set()
        # How many sessions the pages of this round are to take, and how many they will have taken at its end.
        self._round = table.users.count(command.user_id) if isinstance(command, wire.DeleteByUser) else 0
        self._round_end = self._round
        # Digests to look at, for a clean.
        self._unseen: Iterator[bytes] = iter(list(table.sessions) if type(command) is wire.Clean else ())

    def next_page(
        self, table: SessionTable, time_us: int, sequence: int, page_max: int
    ) -> tuple[list[Command], int]:
        """Return what to log next, from `sequence` on, and what that costs in removals. Nothing: the end."""
        command = self.command
        if isinstance(command, wire.Clean):
            return self._over(table, time_us, page_max)
        if not self._goes_on(table.users.count(command.user_id), page_max):
            return [], 0
        others = (digest for digest in table.users.oldest(command.user_id) if digest != command.keep)
        digests = list(islice(others, page_max))
        self.taken.update(digests)
        # These have no client. What is kept of a reply is dropped by the next, which names a later one.
        return [
            wire.DeleteByHandle(number, number, 0, 0, digest, command.user_id)
            for number, digest in enumerate(digests, sequence)
        ], len(digests)

    def _goes_on(self, left: int, page_max: int) -> bool:
        """Whether a log-out has another page. Rounds end, for each is at most half of the one before."""
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

    def last(self) -> Long:
        """Return the command itself, as it is logged when its pages are done."""
        return msgspec.structs.replace(self.command, removed=self.removed)


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
        """Whether pages remove the session of this digest: the command would remove a new one as well."""
        return any(digest in each.taken for each in self.under_way)

    def begin(self, client: bytes, command: Long) -> None:
        """Carry a command out in pages."""
        self.under_way.append(LongCommand(client, command, self._table))

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
        """All pages of a command are applied."""
        self.under_way.remove(command)
