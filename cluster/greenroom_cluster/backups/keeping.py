"""What `greenroom up --data-dir` keeps over an orderly end: a last backup, which comes back once.

    sessions.backup       written at the end, when no actor serves any more
    sessions.restoring    the same file from when the next start begins to bring it back, until it has

A backup comes back at most once: whoever logged out after a start must not be logged in by the next. So a
start that is killed while it brings sessions back leaves `sessions.restoring`, for an operator to decide.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from greenroom.errors import UsageError
from greenroom_cluster.backups.copying import freeze_actors
from greenroom_cluster.backups.files import Backup
from greenroom_cluster.backups.restoring import (
    NotAllRestoredError,
    Restored,
    RestoringStore,
    restore_sessions,
)
from greenroom_cluster.backups.taking import Copied, Taken, take_backup
from greenroom_cluster.lasting_files import sync_directory
from greenroom_cluster.runtime.proving import Keys

KEEP_SECONDS = 20.0
"""How long a shard that cannot be copied holds up an end."""
_RESTORE_SECONDS = 30.0


class KeptSessions:
    """The kept sessions of the cluster with that name and directory."""

    def __init__(self, data_dir: Path, cluster: str) -> None:
        self._cluster = cluster
        self._backup = data_dir / "sessions.backup"
        self._restoring = data_dir / "sessions.restoring"

    def check(self) -> int | None:
        """Return how many sessions the last run kept, None if it left no backup.

        Raises UsageError if an earlier start did not finish, or the backup cannot be brought back.
        """
        if self._restoring.exists():
            raise UsageError(f"an earlier start was ended early. {self.advice}")
        if not self._backup.exists():
            return None
        hint = "Move it away to start without these sessions"
        try:
            backup = Backup(self._backup)
        except UsageError as error:
            raise UsageError(f"{error}. {hint}") from error
        if backup.heading.cluster != self._cluster:
            raise UsageError(
                f"{self._backup} is of the cluster {backup.heading.cluster!r}, and this one is "
                f"{self._cluster!r}: name the other with --cluster. {hint}"
            )
        return backup.sessions

    @property
    def advice(self) -> str:
        """What to do after a start that did not bring all sessions back."""
        return (
            f"It did not bring back all sessions of {self._restoring}. Move that file away; once the "
            "cluster runs, `greenroom restore` creates what is missing"
        )

    async def keep(
        self,
        addresses: Sequence[str],
        told: Callable[[Copied], None],
        credentials: Keys | None,
    ) -> Taken:
        """Have the actors serve no client any more, and write down all sessions.

        Raises UnavailableError, naming the shard, if not all of them can be had, and what `NewFile` does.
        """
        await freeze_actors(addresses, self._cluster, credentials)
        self._set_aside()
        return await take_backup(
            addresses,
            self._cluster,
            self._backup,
            seconds=KEEP_SECONDS,
            freeze=True,
            told=told,
            credentials=credentials,
        )

    async def bring_back(
        self, addresses: Sequence[str], files: Mapping[str, Any] = MappingProxyType({})
    ) -> Restored | None:
        """Create the sessions that were kept; return what became of them, None if there are none.

        Raises NotAllRestoredError, or UsageError if the files cannot be moved or read.
        """
        try:
            self._backup.rename(self._restoring)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._impossible(error) from error
        self._sync()
        backup = Backup(self._restoring)
        url = ",".join(addresses)
        seconds = _RESTORE_SECONDS
        async with RestoringStore(url, cluster=self._cluster, deadline_seconds=seconds, **files) as store:
            try:
                restored = await restore_sessions(store, backup.stored())
            except NotAllRestoredError as error:
                raise NotAllRestoredError(f"{error}. {self.advice}") from error
        if restored.elsewhere:
            raise NotAllRestoredError(
                f"{restored.elsewhere} sessions are of namespaces that this cluster's own apps do not have. "
                f"{self.advice}, with a certificate for each namespace"
            )
        try:
            self._restoring.unlink(missing_ok=True)
        except OSError as error:
            raise self._impossible(error) from error
        return restored

    def _set_aside(self) -> None:
        """Rename a backup that somebody put there while the cluster ran, so that it is not lost."""
        if self._backup.exists():
            try:
                self._backup.rename(self._backup.with_name(f"sessions.backup.{time.time_ns()}"))
            except OSError as error:
                raise self._impossible(error) from error

    def _sync(self) -> None:
        """Have the new name last: after a power cut, the old one would bring back who has logged out."""
        try:
            sync_directory(self._backup.parent)
        except OSError as error:
            raise self._impossible(error) from error

    def _impossible(self, error: OSError) -> UsageError:
        return UsageError(
            f"files in {self._backup.parent} cannot be renamed or removed ({error.strerror}): let this user "
            "write to that directory"
        )
