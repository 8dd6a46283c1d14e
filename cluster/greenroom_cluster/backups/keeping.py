"""What `greenroom up --data-dir` keeps over an orderly end: a last backup, which comes back once.

    sessions.backup       written at the end, when no actor serves any more
    sessions.restoring    the same file from when the next start begins to bring it back, until it has

A backup comes back at most once: whoever logged out after a start must not be logged in by the next. So a
start that is killed while it brings sessions back leaves `sessions.restoring`, for an operator to decide.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from greenroom.errors import UsageError
from greenroom_cluster.backups.copying import freeze_actors
from greenroom_cluster.backups.files import Backup
from greenroom_cluster.backups.restoring import Restored, RestoringStore, restore_sessions
from greenroom_cluster.backups.taking import Taken, take_backup

KEEP_SECONDS = 20.0
"""How long a shard that cannot be copied holds up an end."""
_RESTORE_SECONDS = 30.0


class KeptSessions:
    """The kept sessions of the cluster with that name and directory."""

    def __init__(self, data_dir: Path, cluster: str) -> None:
        self._cluster = cluster
        self._backup = data_dir / "sessions.backup"
        self._restoring = data_dir / "sessions.restoring"

    def check(self) -> None:
        """Raise UsageError if an earlier start did not finish, or the backup is damaged."""
        if self._restoring.exists():
            raise UsageError(
                f"an earlier start was ended while it brought back {self._restoring}. Move it away; "
                "`greenroom restore` creates what is missing once the cluster runs"
            )
        if self._backup.exists():
            Backup(self._backup)

    async def keep(self, addresses: Sequence[str], told: Callable[[int], None]) -> Taken:
        """Have the actors serve no client any more, and write down all sessions.

        Raises UnavailableError, naming the shard, if not all of them can be had.
        """
        await freeze_actors(addresses, self._cluster)
        self._backup.unlink(missing_ok=True)
        return await take_backup(addresses, self._cluster, self._backup, seconds=KEEP_SECONDS, told=told)

    async def bring_back(self, addresses: Sequence[str]) -> Restored | None:
        """Create the sessions that were kept; return what became of them, None if there are none.

        Raises what the store does, such as StoreFullError.
        """
        if not self._backup.exists():
            return None
        self._backup.rename(self._restoring)
        backup = Backup(self._restoring)
        url = ",".join(addresses)
        async with RestoringStore(url, cluster=self._cluster, deadline_seconds=_RESTORE_SECONDS) as store:
            restored = await restore_sessions(store, backup.stored())
        self._restoring.unlink()
        return restored
