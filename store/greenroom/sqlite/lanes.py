"""A lane: a thread, its connection, and the operations that wait for it.

Everything that waits is done in one transaction, in the order of arrival, and its callers are told after the
commit: one sync pays for all of them. A transaction that reads begins after the operations were asked for, so
it sees everything that was acknowledged before, by any process.
"""

import logging
import math
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec

from greenroom import wire
from greenroom.errors import GreenroomError, OutcomeUnknownError, StoreFullError, UnavailableError
from greenroom.sqlite.failures import is_busy, is_full, is_io, name_of, not_applied
from greenroom.sqlite.files import Database, identity_of, open_database
from greenroom.sqlite.operations import DONE, TAKEN, WAITING, Look, Operation, Seen, deliver
from greenroom.sqlite.room import Room, grows
from greenroom.sqlite.rows import LOADED_BYTES_MAX, RowTable
from greenroom.sqlite.settings import Settings

BATCH_MAX: Final = 256
"""How many operations one transaction takes."""
CHECKPOINT_CHANGES: Final = 1000
"""After about so many changed pages, the log is moved into the file."""
CLEAN_MAX: Final = 200
"""How many expired sessions one transaction of the cleaning removes."""
CLEAN_SECONDS: Final = 10.0
CLEANING_SECONDS = 1.0
"""How long the cleaning waits for its turn."""
CLEAN_AGAIN_SECONDS: Final = 0.1
WAL_PAGES_MAX: Final = 4 * CHECKPOINT_CHANGES
"""How long the log may grow before it is emptied, for which writers wait at most so many milliseconds."""
TRUNCATE_MS: Final = 50
TIME_US: Final = 60_000_000
HELD_SECONDS = 1.0
"""A wait for another process that is longer than that is told in the log, at most once in so many seconds."""
TELL_SECONDS: Final = 60.0
_POLL_SECONDS = (0.0002, 0.002)

_log = logging.getLogger("greenroom")


class Clock:
    """The time of a store: that of its clock, but never behind a time by which something was decided."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._newest = 0

    def after(self, written_us: int) -> int:
        """Return the time now, at least `written_us`, which another process may have written."""
        self._newest = max(self._newest, written_us, self._now_us())
        return self._newest


class Stop:
    """The last thing in a lane: close the connection, and tell the caller of `operation`."""

    def __init__(self, operation: Operation | None) -> None:
        self.operation = operation


class Fault:
    """Why a store writes no more, or does nothing more, until the app is restarted. Its lanes share it."""

    def __init__(self) -> None:
        self.of_writes = ""
        self.of_all = ""

    def __bool__(self) -> bool:
        return bool(self.of_writes or self.of_all)

    def refusal(self, *, mutating: bool) -> GreenroomError | None:
        """Return the error for an operation, None if it may go on."""
        reason = self.of_all or (self.of_writes if mutating else "")
        return UnavailableError(reason) if reason else None


class Lane:
    """A thread with a connection. `reading`: it does reads alone. `name` is that of the thread.

    `guard` is held while the connection is in use; a fork takes it, closes the connection and lets go.
    """

    def __init__(self, settings: Settings, clock: Clock, fault: Fault, *, reading: bool) -> None:
        self.queue: SimpleQueue[Operation | Stop] = SimpleQueue()
        self.guard = threading.Lock()
        self.lock = threading.Lock()
        """Whoever moves an operation on holds it."""
        self.reason = ""
        """Why operations wait, for the error at the deadline."""
        self.database: Database | None = None
        self.wal = False
        """Whether the file is known to be in WAL mode, in which reads need no turn."""
        self._settings = settings
        self._clock = clock
        self._fault = fault
        self._reading = reading
        self._room = Room(settings.path)
        self._is_short = False
        self._table = RowTable(CLEAN_MAX)
        self._deciders: dict[type, Callable[[Any, int, int], Any]] = {
            **self._table.deciders(),
            wire.ListByUser: lambda command, now, _: self._table.newest_of(
                command.user_id, command.limit, now
            )[0],
            Look: lambda command, now, version: Seen(version, now, self._table.seen(command.digests)),
        }
        self._carried: list[Operation] = []
        self._unmoved = 0
        self._clean_at = time.monotonic() + settings.clean_seconds
        self._stop: Stop | None = None
        self._held_at = self._told_at = -math.inf
        self._version = self._written_us = 0

    def start(self) -> None:
        """Begin to work."""
        name = f"greenroom-sqlite-{'reads' if self._reading else 'writes'}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def close(self) -> None:
        """Close the connection. The caller holds the guard."""
        if self.database is not None:
            self.database.connection.close()
            self.database = None

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            try:
                self._serve(batch)
            except Exception as error:  # noqa: BLE001  a bug: the thread goes on, its callers hear of it
                _log.exception("the store %s failed", self._settings.path)
                self._finish(batch, error)
            if self._stop is not None and not self._carried and self.queue.empty():
                break
        with self.guard:
            self.close()
        if self._stop.operation is not None:
            self._finish([self._stop.operation], None)

    def _next_batch(self) -> list[Operation]:
        """Return what waits; empty when it is time to clean or to checkpoint."""
        batch, self._carried = self._carried, []
        try:
            if not batch and self._stop is None:
                self._add(batch, self.queue.get(timeout=self._idle_seconds()))
            while len(batch) < BATCH_MAX:
                self._add(batch, self.queue.get_nowait())
        except Empty:
            pass
        return batch

    def _add(self, batch: list[Operation], found: Operation | Stop) -> None:
        if isinstance(found, Stop):
            self._stop = found
        else:
            batch.append(found)

    def _idle_seconds(self) -> float | None:
        if self._reading:
            return None
        return max(0.0, self._clean_at - time.monotonic())

    def _serve(self, batch: list[Operation]) -> None:
        if not self._reading and time.monotonic() >= self._clean_at:
            self._clean()
        if batch:
            self._transact(batch)
        if self._unmoved >= CHECKPOINT_CHANGES:
            self._checkpoint()

    def _clean(self) -> None:
        """Remove some expired sessions, if there are any; soon again, if there are more."""
        self._clean_at = time.monotonic() + self._settings.clean_seconds
        with self.guard, suppress(sqlite3.Error):
            database = self.database
            if database is None or not self._table.anything_over(database.connection, self._clock.after(0)):
                return
        cleaning = Operation(wire.Clean(0, 0, 0, ()), None, time.monotonic() + CLEANING_SECONDS)
        self._transact([cleaning])
        if isinstance(cleaning.reply, wire.Counted) and cleaning.reply.counts[0][1] >= CLEAN_MAX:
            self._clean_at = time.monotonic() + CLEAN_AGAIN_SECONDS

    # --- a transaction ------------------------------------------------------------------------------------

    def _transact(self, batch: list[Operation]) -> None:
        """Do the operations in one transaction. On return the guard is free and each has been told."""
        batch = self._admitted(batch)
        if not batch:
            return
        mutating = any(operation.mutating for operation in batch)
        try:
            connection = self._begun(batch, mutating=mutating)
        except GreenroomError as error:
            self._finish(batch, error)
            return
        if connection is None:  # given up by all
            return
        try:
            done, failure = self._decided(connection, batch, mutating=mutating)
        finally:
            self._roll_back()  # what a bug has left open
            self._table.forget()
            self.guard.release()
        self._finish(self._in_need(done) if isinstance(failure, StoreFullError) else done, failure)

    def _admitted(self, batch: list[Operation]) -> list[Operation]:
        """Return the operations that may go on; tell the others why not."""
        if not self._fault:
            return batch
        admitted = []
        for operation in batch:
            refusal = self._fault.refusal(mutating=operation.mutating)
            if refusal is None:
                admitted.append(operation)
            else:
                self._finish([operation], refusal)
        return admitted

    def _begun(self, batch: list[Operation], *, mutating: bool) -> sqlite3.Connection | None:
        """Begin a transaction and keep the guard; None, without it, if every caller has given up."""
        while True:
            self.guard.acquire()  # kept on success
            kept = False
            try:
                database = self._opened()
                if mutating:
                    database.connection.execute("BEGIN IMMEDIATE")
                elif any(type(operation.command) is not wire.Get for operation in batch):
                    database.connection.execute("BEGIN")  # else one statement is a transaction
                # In a reading transaction this takes its lock.
                self._version, self._written_us = self._table.begin(database.connection, _digests(batch))
                kept = True
                self._goes_on()
                return database.connection
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise not_applied(error, self._settings.path) from None
                self._waits()
            except msgspec.MsgspecError:
                path = self._settings.path
                raise UnavailableError(
                    f"{path} holds what no store has written: bring back a backup"
                ) from None
            finally:
                if not kept:
                    self._roll_back()
                    self.guard.release()
            time.sleep(random.uniform(*_POLL_SECONDS))  # noqa: S311  it keeps processes apart
            now = time.monotonic()
            # The cleaning has no caller whose deadline is watched.
            if all(each.progress is DONE or (each.home is None and each.deadline < now) for each in batch):
                self._goes_on()
                return None

    def _waits(self) -> None:
        """Note that another process holds the file."""
        if not self.reason:
            self._held_at = time.monotonic()
            self.reason = f"another process holds {self._settings.path}"

    def _goes_on(self) -> None:
        """Note that no other process is waited for any more."""
        if not self.reason:
            return
        self.reason = ""
        now = time.monotonic()
        if now - self._held_at >= HELD_SECONDS and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            _log.warning(
                "operations waited %.1f s for another process that held %s: look for a tool or a shell of "
                "sqlite3 within a transaction",
                now - self._held_at,
                self._settings.path,
            )

    def _opened(self) -> Database:
        if self.database is None:
            settings = self._settings
            self.database = open_database(
                settings.path, self._waits, synchronous=settings.synchronous, reading=self._reading
            )
            self.wal = self.database.wal
        elif identity_of(self._settings.path) != self.database.identity:
            self._fault.of_all = (
                f"{self._settings.path} was deleted or replaced while the app used it: restart the app, to "
                "go on with the file that is there"
            )
            raise UnavailableError(self._fault.of_all)
        return self.database

    def _decided(
        self, connection: sqlite3.Connection, batch: list[Operation], *, mutating: bool
    ) -> tuple[list[Operation], GreenroomError | None]:
        """Decide and commit. Return what was taken, with the error of all of it, if any."""
        taken: list[Operation] = []
        replies: list[Any] = []
        try:
            now = self._clock.after(self._written_us)
            taken = self._take(batch)
            table = self._table
            growing = any(operation.mutating and grows(operation.command) for operation in taken)
            self._is_short = growing and self._room.is_short(connection)
            for operation in taken:
                if operation.mutating:
                    self._version += 1
                replies.append(self._reply(operation, now))
                if table.loaded_bytes > LOADED_BYTES_MAX:  # the rest waits for the next one
                    break
            self._give_back(taken[len(replies) :])
            del taken[len(replies) :]
            wrote = table.flush()
            # A time alone is worth a sync only now and then: it matters if the clock of the host goes back.
            if wrote or (mutating and now > self._written_us + TIME_US):
                connection.execute(
                    "UPDATE clock SET version = ?, time_us = ?", (self._version, max(now, self._written_us))
                )
        except sqlite3.Error as error:
            self._roll_back()
            return taken, self._not_applied(error)
        except GreenroomError as error:  # of the app's clock
            self._roll_back()
            return taken or batch, error
        failure = self._committed(connection, mutating=mutating)
        self._goes_on()
        if failure is None:
            self._unmoved += (2 + len(taken)) * mutating
            for operation, reply in zip(taken, replies, strict=True):
                operation.reply = reply
        return taken, failure

    def _reply(self, operation: Operation, now: int) -> Any:
        try:
            if type(operation.command) is wire.Get:
                return self._table.live(operation.command.digest, now)
            if self._is_short and operation.mutating and grows(operation.command):
                return self._room.refusal()
            return self._deciders[type(operation.command)](operation.command, now, self._version)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  one command must not fail those of others
            return error

    def _committed(self, connection: sqlite3.Connection, *, mutating: bool) -> GreenroomError | None:
        """Commit; return the error if that failed."""
        path = self._settings.path
        end = time.monotonic() + self._settings.deadline_seconds
        while connection.in_transaction:
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if is_busy(error) and connection.in_transaction:
                    if time.monotonic() < end:  # a process that reads, without WAL
                        self._waits()
                        time.sleep(random.uniform(*_POLL_SECONDS))  # noqa: S311  as above
                        continue
                    self._roll_back()
                    return UnavailableError(f"nothing was written: another process holds {path}")
                self._roll_back()
                if not mutating or not is_io(error):
                    return self._not_applied(error)
                return self._faulted(error)
        return None

    def _not_applied(self, error: sqlite3.Error) -> GreenroomError:
        if is_full(error):  # with the log moved into the file there may be room
            self._unmoved = CHECKPOINT_CHANGES
        return not_applied(error, self._settings.path)

    def _faulted(self, error: sqlite3.Error) -> GreenroomError:
        """Write no more: what the disk has of this transaction, and of later ones, cannot be known."""
        path, name = self._settings.path, name_of(error)
        self._fault.of_writes = (
            f"nothing was written: the disk failed to write or sync {path} ({name}) before. Look at the "
            "kernel's log and the disk, then restart the app. Reads go on unless the disk fails them too"
        )
        _log.error("the disk failed to write or sync %s (%s): no more writes until a restart", path, name)
        return OutcomeUnknownError(
            f"the disk failed to write or sync {path} ({name}): the change may have been applied. Look at "
            "the kernel's log and the disk, then restart the app",
            harmless_to_repeat=False,
        )

    def _roll_back(self) -> None:
        database = self.database
        if database is not None and database.connection.in_transaction:
            try:
                database.connection.execute("ROLLBACK")
            except sqlite3.Error:  # a new connection begins with what the file has
                self.close()

    def _checkpoint(self) -> None:
        """Move the log into the file, after the callers were told. Readers and other writers go on."""
        self._unmoved = 0
        with self.guard:
            if self.database is None or not self.database.wal:
                return
            try:
                execute = self.database.connection.execute
                _, pages, _ = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages > WAL_PAGES_MAX:  # a reader was in the way each time
                    execute(f"PRAGMA busy_timeout = {TRUNCATE_MS}").fetchall()
                    execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    execute("PRAGMA busy_timeout = 0").fetchall()
            except sqlite3.Error as error:
                if is_io(error):
                    self._faulted(error)
                elif not is_busy(error) and not is_full(error):
                    _log.warning("the log of %s was not moved (%s)", self._settings.path, name_of(error))

    # --- moving operations on -----------------------------------------------------------------------------

    def _take(self, batch: list[Operation]) -> list[Operation]:
        with self.lock:
            taken = [operation for operation in batch if operation.progress is WAITING]
            for operation in taken:
                operation.progress = TAKEN
        return taken

    def _give_back(self, operations: list[Operation]) -> None:
        """Keep for the next transaction what this one had no room for."""
        if operations:
            with self.lock:
                for operation in operations:
                    if operation.progress is TAKEN:
                        operation.progress = WAITING
            self._carried = [*operations, *self._carried]

    def _in_need(self, done: list[Operation]) -> list[Operation]:
        """Return the operations for which there was no space; what needs less is tried again without them."""
        changing = [operation for operation in done if operation.mutating]
        in_need = [operation for operation in changing if grows(operation.command)] or changing or done
        self._give_back([operation for operation in done if operation not in in_need])
        return in_need

    def _finish(self, operations: list[Operation], error: Exception | None) -> None:
        """Tell the callers: of the error, or of the reply that each has."""
        with self.lock:
            done = [operation for operation in operations if operation.progress is not DONE]
            for operation in done:
                operation.progress = DONE
                if error is not None:
                    operation.reply = _error_for(operation, error)
        deliver(done)


def _digests(operations: list[Operation]) -> list[bytes]:
    digests = []
    for operation in operations:
        command = operation.command
        if type(command) is wire.Get:
            digests.append(command.digest)
            continue
        digest = getattr(command, "digest", None)
        if digest is not None:
            digests.append(digest)
        if type(command) is wire.Rotate:
            digests.append(command.new_digest)
    return digests


def _error_for(operation: Operation, error: Exception) -> Exception:
    """Return an error of the caller's own: several tasks must not raise one object."""
    if isinstance(error, OutcomeUnknownError):
        if not operation.mutating:
            return UnavailableError(str(error))
        return OutcomeUnknownError(str(error), harmless_to_repeat=operation.harmless)
    if isinstance(error, GreenroomError):
        return type(error)(*error.args)
    return error
