"""What a primary does on its own: expire sessions, forget silent clients, tell backups what they missed."""

from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.records import Expire, ForgetClients

TELL_EVERY = 30


class Upkeep:
    """The upkeep of one primary."""

    __slots__ = (
        "_context",
        "_copy",
        "_due_ns",
        "_forget_from_ns",
        "_latest_ns",
        "_replication",
        "_rounds",
        "_swept",
    )

    def __init__(self, replication: Replication, context: Context, now_ns: int) -> None:
        self._replication = replication
        self._copy = replication.copy
        self._context = context
        self._swept = 0
        self._rounds = 0
        self._latest_ns = now_ns
        self._due_ns = 0
        self._forget_from_ns = 0

    def reconfigure(self) -> None:
        """Tell the commit point often again: backups may not know the new configuration yet."""
        self._rounds = 0

    def sweep(self, now_ns: int, wall_us: int, looks: int, *, paused: bool) -> int:
        """Log the end of expired sessions and, now and then, of silent clients; return the number of looks.

        Nothing more is logged before the last of it is committed: it would pile up while a peer is away.
        """
        copy = self._copy
        due = now_ns >= self._due_ns
        if due:
            self._due_ns = now_ns + ns(self._context.settings.sweep_seconds)
            self._tell_recipients()
        if paused or copy.committed < self._swept:
            return 0
        time_us = copy.clock.read(now_ns, wall_us)
        over, looked = copy.table.due(time_us, looks)
        if over:
            self._swept = self._replication.decide(now_ns, time_us, Expire(tuple(over)))
        if due:
            self._warn_of_the_clock()
            self._forget_silent_clients(now_ns, time_us)
        return looked

    def _warn_of_the_clock(self) -> None:
        copy = self._copy
        if copy.clock.doubted_us:
            self._context.warn(
                f"the wall clock is {copy.clock.doubted_us / 1e6:.1f} s ahead of the shard's time and is "
                "followed only slowly: check this host's clock",
                copy.shard,
            )

    def _tell_recipients(self) -> None:
        """Tell the commit point again, for backups that ignored it before they knew the configuration.

        That is likely soon after a change of the configuration, so after 1, 2, 4, ... rounds.
        """
        self._rounds += 1
        soon = self._rounds < TELL_EVERY and self._rounds & (self._rounds - 1) == 0
        if soon or self._rounds % TELL_EVERY == 0:
            self._replication.tell_commit_point()

    def _forget_silent_clients(self, now_ns: int, time_us: int) -> None:
        settings = self._context.settings
        if now_ns - self._latest_ns > ns(settings.operation_deadline_seconds):
            # After a pause or a time without service, clients only seem silent: their repeats may wait in the
            # sockets, and must still find their kept replies.
            self._forget_from_ns = now_ns + settings.forget_us * 1000
        self._latest_ns = now_ns
        if now_ns < self._forget_from_ns:
            return
        since_us = time_us - settings.forget_us
        silent = self._copy.table.clients.silent_since(since_us)
        if silent:
            self._swept = self._replication.decide(now_ns, time_us, ForgetClients(silent, since_us))
