"""Creates sessions in a running cluster: what is not there and has not expired, under new versions."""

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import trio

from greenroom import ClusterStore, wire
from greenroom.cluster_store import version_of
from greenroom.dialog import operations
from greenroom.errors import GreenroomError, SessionExistsError, UsageError
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.runtime.tasks import one_for_all, open_tasks
from greenroom_cluster.shard.state.namespaces import namespace_of
from greenroom_cluster.shard.state.records import StoredSession

WORKERS = 32
_TELL_EVERY = 10_000


class Restored(msgspec.Struct):
    """What became of the sessions of a backup: how many were created, and how many not, by reason.

    Those `elsewhere` are of another namespace than the one that is restored to.
    """

    created: int = 0
    existed: int = 0
    expired: int = 0
    left_out: int = 0
    elsewhere: int = 0

    @property
    def looked_at(self) -> int:
        """Return how many sessions were looked at."""
        return self.created + self.existed + self.expired + self.left_out + self.elsewhere


class NotAllRestoredError(GreenroomError):
    """Some sessions of a backup were not created, and why."""


class RestoringStore(ClusterStore):
    """A store that creates sessions as a backup has them: by their digests, for it knows no ids."""

    @property
    def namespace(self) -> str:
        """The namespace of what it creates, that of its certificate; empty for `default`.

        Raises UsageError if it has a token, which does not say that.
        """
        if self._security is None:
            return ""
        identity = self._security.identity
        if identity is None:
            raise UsageError(
                "--token-file: a token does not say which namespace it is for: give the certificate of a "
                "client, with --tls-cert and --tls-key"
            )
        return identity.namespace

    async def create_stored(self, stored: StoredSession) -> bool:
        """Create a session; return False if there is one under its digest.

        Raises StoreFullError, and what `create` does.
        """
        state = stored.state
        runner = self._registry.current()
        dialog = runner.dialog
        request = wire.Create(
            dialog.next_id(),
            dialog.low,
            0,
            state.point,
            stored.digest[:DIGEST_BYTES],
            state.user_id,
            state.created_us,
            state.expires_us,
            state.absolute_us,
            state.label,
            state.data,
        )
        try:
            version_of(await runner.perform(request, operations.CREATE))
        except SessionExistsError:
            return False
        return True


async def restore_sessions(
    store: RestoringStore,
    sessions: Iterable[StoredSession],
    *,
    created_before_us: int | None = None,
    told: Callable[[Restored], None] = lambda _: None,
) -> Restored:
    """Create these sessions and return what became of them; `told` hears of it now and then.

    Those that were created at `created_before_us` or later are left out. Raises NotAllRestoredError if the
    store raises an error: what was created until then stays, and a repetition goes on where this ended.
    """
    done = Restored()
    left = iter(sessions)
    try:
        with one_for_all():
            async with open_tasks() as tasks:
                for _ in range(WORKERS):
                    tasks.start_soon(_work, store, left, created_before_us, done, told)
    except GreenroomError as error:
        raise NotAllRestoredError(
            f"{done.created} sessions were created, then one was not: {error}. Repeat `greenroom restore` or "
            "`import` after that: it goes on where this ended"
        ) from error
    return done


async def _work(
    store: RestoringStore,
    left: Iterator[StoredSession],
    created_before_us: int | None,
    done: Restored,
    told: Callable[[Restored], None],
) -> None:
    for stored in left:
        state = stored.state
        if namespace_of(stored.digest) != store.namespace:
            done.elsewhere += 1
        elif created_before_us is not None and state.created_us >= created_before_us:
            done.left_out += 1
        elif state.expires_us <= time.time_ns() // 1000:
            done.expired += 1
        elif await store.create_stored(stored):
            done.created += 1
        else:
            done.existed += 1
        if done.looked_at % _TELL_EVERY == 0:
            told(done)
            await trio.lowlevel.checkpoint()
