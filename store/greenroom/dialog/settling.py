"""How operations end: by a reply, by a refusal, at their deadline, or because nobody will ever answer."""

from typing import NoReturn

from greenroom import wire
from greenroom.dialog import gathering, redirects, verdicts
from greenroom.dialog.dispatch import DialogSettings, Dispatcher
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Link
from greenroom.dialog.map_follower import MapFollower
from greenroom.dialog.operations import WATCH, AnyOperation, Gathering, Kind
from greenroom.dialog.watches import Watches
from greenroom.errors import GreenroomError, RemoteProtocolError, UnavailableError


class Settling:
    """The part of a dialog that settles operations. The driver empties `replies` and `failures`."""

    _dispatcher: Dispatcher
    _follower: MapFollower
    _lanes: Lanes
    _ledger: Ledger
    _settings: DialogSettings
    notices: list[str]
    watches: Watches

    def __init__(self) -> None:
        self.replies: list[tuple[object, wire.Reply]] = []
        self.failures: list[tuple[object, GreenroomError]] = []
        self._told_mistake = False

    def _refuse_crowd(self, kind: Kind) -> NoReturn:
        settings = self._settings
        raise UnavailableError(
            f"{kind.name} was not sent: overloaded, {len(self._ledger.pending)} operations are in flight and "
            f"{self._dispatcher.waiting_bytes} bytes wait to be sent (of "
            f"operations_max={settings.operations_max}, {settings.waiting_bytes_max} bytes). Repeat it later."
        )

    def _failed(self, operation: AnyOperation, error: GreenroomError) -> None:
        """Note that an operation, which is finished, has failed."""
        if operation.kind is WATCH:
            self.watches.failed(operation.token, error)
        else:
            self.failures.append((operation.token, error))

    def _fail_unknowable(self, operation: AnyOperation, message: wire.Unknowable) -> None:
        """Fail a mutation for which the shard cannot tell whether it was applied."""
        self._dispatcher.finish(operation)
        why = f"the cluster no longer knows this client ({message.reason})"
        error = verdicts.outcome_unknown(operation.kind, why, self._settings.deadline_seconds)
        self._failed(operation, error)

    def _fail_alone(self, operation: AnyOperation, message: wire.Failed) -> None:
        """Fail a read, or an operation on all shards, that an actor refused for good."""
        self._dispatcher.finish(operation)
        error = verdicts.refused(operation, message.detail, self._settings.deadline_seconds)
        self._failed(operation, error)

    def _take_part(self, link: Link, message: object, operation: Gathering, now_ns: int) -> None:
        """Take one actor's part of the reply to an operation on all shards."""
        if link not in operation.asked:
            return
        match message:
            case wire.Redirect() | wire.Overloaded():
                del operation.asked[link]
                redirects.note(operation, link, message)
                self._dispatcher.hold(operation, now_ns)
            case wire.Unknowable() if operation.kind.mutation:
                self._fail_unknowable(operation, message)
            case wire.Failed():
                del operation.asked[link]
                self._fail_alone(operation, message)
            case wire.Counted() | wire.Listing() if type(message) in operation.kind.finals:
                complete = gathering.take_reply(operation, link, message)
                if not operation.remaining or (operation.answered and operation.kind.one_is_enough):
                    self._dispatcher.finish(operation)
                    self.replies.append((operation.token, operation.merged()))
                elif complete:
                    self._dispatcher.dispatch(operation, now_ns)
                else:
                    operation.reason = f"the actor at {link.address} does not serve all its shards (yet)"
                    self._dispatcher.hold(operation, now_ns)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} answers a {operation.kind.name}")

    def _forget_partial_replies(self) -> None:
        """Start unanswered operations over: their partial replies came from a cluster that is gone."""
        for operation in self._ledger.pending.values():
            if isinstance(operation, Gathering):
                operation.counted = 0
                operation.sessions = []
            else:
                operation.wait_version = 0

    def _fail(self, operation: AnyOperation, why: str) -> None:
        operation.reason = verdicts.obstacle(operation, self._follower, self._lanes)
        has_map = self._follower.router is not None
        error = verdicts.failure(operation, why, self._settings.deadline_seconds, has_map=has_map)
        self._dispatcher.finish(operation)
        self._failed(operation, error)

    def _end_mistaken(self) -> None:
        """Fail operations that wait for a map that will never come: only the caller can put that right."""
        if not self._follower.is_mistaken:
            return
        if not self._told_mistake:  # also to an app that asks for nothing now, and would never learn it
            self._told_mistake = True
            told = verdicts.mistake(self._follower, self._settings.cluster)
            self.notices.append(f"no node serves this store, which goes on asking: {told}")
        while (operation := self._ledger.oldest()) is not None:
            error = verdicts.mistaken(operation.kind, self._follower, self._settings.cluster)
            self._dispatcher.finish(operation)
            self._failed(operation, error)
