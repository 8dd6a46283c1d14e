"""Admission: the limits at which a primary refuses a request before it is logged.

A refusal is `Overloaded`, which promises that nothing was applied, or `Failed` if no session may hold what
the request brings. The limits bound memory and, equally important, the work of one step: no beacon and no
sign of life is sent while a step runs, so an actor that applies too much at once looks dead to everybody, and
so does its peer, which applies the same. A patch costs what it brings plus the size of the session that it
opens, once everything logged before is applied; many small containers cost more than their bytes. The session
is opened once, however many paths the patch has.
"""

from collections.abc import Callable
from typing import TypeAlias

from greenroom import wire
from greenroom.fields import DATA_BYTES_MAX, LABEL_BYTES_MAX, USER_ID_BYTES_MAX
from greenroom.scan.bounds import MalformedError
from greenroom.scan.checks import check_data, check_values
from greenroom.scan.plain import NOT_PLAIN, openings, plain_value
from greenroom_cluster.shard.disk_log import is_ending
from greenroom_cluster.shard.limits.fairness import COSTLY_BYTES
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.kept_replies import Client
from greenroom_cluster.shard.state.log import COMMAND_BYTES, RECORD_OVERHEAD_BYTES, text_bytes
from greenroom_cluster.shard.state.sharing import is_over_share
from greenroom_cluster.shard.step import Step

Write: TypeAlias = wire.Mutation | wire.DeleteByUser | wire.Clean

OPENING = frozenset({wire.Patch, wire.Rotate})
"""Commands that open a session and are answered with it."""

_REST_BYTES = RECORD_OVERHEAD_BYTES + COMMAND_BYTES
SMALL_BYTES = 2048
"""Writes that take no more than this in the log are not accounted for."""
_LARGE_BYTES = 64 * 1024
"""A step opens at most one session of this size or more."""
_WALKED_WEIGHT = 15
_OPENING_BYTES = 32
"""A container takes as long to read and write as so many bytes of text."""


class Admission:
    """One primary's limits, and what the commands will cost that it has logged but not applied.

    `shed` is called when too much is in the log, and may free some of it.
    """

    __slots__ = (
        "_cleaning",
        "_copy",
        "_growth",
        "_log",
        "_opening",
        "_settings",
        "_shed",
        "_step",
        "_table",
        "costs",
    )

    def __init__(self, copy: Copy, resources: Resources, shed: Callable[[int], None]) -> None:
        self._copy = copy
        self._log = copy.log
        self._table = copy.table
        self._settings = resources.context.settings
        self._step = resources.step
        self._opening = resources.opening
        self._shed = shed
        self._cleaning = 0
        # By sequence number: the cost, the session that may grow, by how much, and the client.
        self.costs: dict[int, tuple[int, bytes, int, str]] = {}
        self._growth: dict[bytes, int] = {}

    def forgotten(self, known: Client | None, age_ms: int, time_us: int) -> bool:
        """Whether a repeat is so old that its first attempt may have been applied and forgotten.

        A known client proves nothing: it may have become known again after the first attempt.
        """
        if age_ms * 2000 <= self._settings.forget_us:
            return False
        return known is None or time_us - age_ms * 1000 < known.since_us

    def refusal(
        self, now_ns: int, client: bytes, known: Client | None, command: Write, size: int
    ) -> wire.EncodedReply | None:
        """Return why the command, whose record has `size`, is not taken; None if it is.

        `known` is what is known of the client.
        """
        settings, request_id = self._settings, command.request_id
        if self._log.held_bytes > settings.uncommitted_bytes_max:
            self._shed(now_ns)
            if self._log.held_bytes > settings.uncommitted_bytes_max:
                return self.too_many_bytes(request_id)
        if known is None:
            if self._too_many_clients(client):
                return wire.Overloaded(request_id, "too many stores wrote to this shard lately: open fewer")
        elif (
            len(known.replies) >= settings.replies_max or known.kept_bytes > settings.replies_bytes_max
        ) and self._too_many_replies(known, command):
            return wire.Overloaded(request_id, "the client has yet to confirm too many replies")
        kind = type(command)
        if kind is wire.Update or kind is wire.Create:
            return self._refused_write(command)  # type: ignore[arg-type]  # kind says which
        if kind is wire.Patch or kind is wire.Rotate:
            waiting, most = self._opening.bytes, settings.patch_bytes_max
            # First what is known at once, because estimating the cost takes time too.
            if waiting and (
                waiting + self._opened(command.digest) > most  # type: ignore[union-attr]  # kind says which
                or waiting + self._cost(command, size) > most  # type: ignore[arg-type]  # kind says which
            ):
                return wire.Overloaded(request_id, "too many large sessions are patched: keep them smaller")
            return _malformed(self._step, command)  # type: ignore[arg-type]  # kind says which
        if kind is wire.Clean and self._cleaning > self._copy.committed:
            return wire.Overloaded(request_id, "this shard is being cleaned already")
        return None

    def _too_many_clients(self, client: bytes) -> bool:
        """Whether the namespace of a client that is not known yet has too many already."""
        clients, most = self._table.clients, self._settings.clients_max
        if len(clients) < most:
            return False
        return is_over_share(clients.count_beside(client) + 1, len(clients) + 1, most)

    def _refused_write(self, command: wire.Create | wire.Update) -> wire.Failed | None:
        """Return a refusal if no session may hold this data; count how much of it was read in Python."""
        data, label, user_id = command.data, command.label, command.user_id
        if len(data) > DATA_BYTES_MAX:
            return wire.Failed(command.request_id, wire.FailureCode.TOO_LARGE, f"{len(data)} bytes")
        if label or user_id is not None:
            objection = _label_objection(label) or _user_objection(user_id)
            if objection:
                return wire.Failed(command.request_id, wire.FailureCode.INVALID, objection)
        try:
            items = check_data(data)
        except MalformedError as error:
            self._step.walked_items += error.walked_items
            return wire.Failed(command.request_id, wire.FailureCode.INVALID, str(error))
        if items:
            self._step.walked_items += items
        return None

    def _too_many_replies(self, known: Client, command: Write) -> bool:
        """Whether the client's replies, which are over a limit, would still be over it with this command.

        The replies that this command confirms do not count: were it refused because of them, the client could
        never confirm anything. The request up to which all is confirmed is not refused either: the client
        needs its reply to confirm more.
        """
        settings = self._settings
        if command.request_id <= command.low:
            return False
        count, size = known.kept_from(command.low)
        return count >= settings.replies_max or size > settings.replies_bytes_max

    def logged(self, sequence: int, command: Write, size: int) -> None:
        """Account for a command that was logged in a record of `size`.

        Not needed for writes up to SMALL_BYTES, nor for a command that opens no session and is no Clean.
        """
        kind = type(command)
        if kind is wire.Update or kind is wire.Create:
            brought = len(command.data)  # type: ignore[union-attr]  # kind says which
            if brought > SMALL_BYTES:
                self._account(sequence, 0, command.digest, brought)  # type: ignore[union-attr]  # kind says which
        elif kind is wire.Patch:
            self._account(sequence, self._cost(command, size), command.digest, size - _REST_BYTES)  # type: ignore[arg-type,union-attr]  # kind says which
        elif kind is wire.Rotate:
            # The new id gets the session as it will be by then.
            cost = self._cost(command, size)  # type: ignore[arg-type]  # kind says which
            growth = size - _REST_BYTES + self._opened(command.digest)  # type: ignore[union-attr]  # kind says which
            self._account(sequence, cost, command.new_digest, growth)  # type: ignore[union-attr]  # kind says which
        elif kind is wire.Clean:
            self._cleaning = sequence

    def _account(self, sequence: int, cost: int, digest: bytes, growth: int) -> None:
        self.costs[sequence] = (cost, digest, growth, self._step.identity)
        self._opening.bytes += cost
        self._growth[digest] = self._growth.get(digest, 0) + growth

    def applied(self, sequence: int) -> None:
        """Release what an applied command had reserved."""
        known = self.costs.pop(sequence, None)
        if known is not None:
            cost, digest, growth, identity = known
            self._opening.bytes -= cost
            if identity and (size := max(cost, growth)) >= COSTLY_BYTES:
                applied = self._step.applied_bytes
                applied[identity] = applied.get(identity, 0) + size
            # Gone already if none of the commands left brings anything.
            left = self._growth.get(digest, 0) - growth
            if left > 0:
                self._growth[digest] = left
            else:
                self._growth.pop(digest, None)

    def close(self) -> None:
        """Release everything: this primary applies nothing more."""
        self._opening.bytes -= sum(cost for cost, *_ in self.costs.values())
        self.costs.clear()
        self._growth.clear()

    @staticmethod
    def too_many_bytes(request_id: int) -> wire.Overloaded:
        """Return the refusal of a command that would make the log outgrow its bound."""
        return wire.Overloaded(request_id, "too many bytes wait for the shard's backup: write less at once")

    def opened(self, command: Write, size: int) -> int:
        """Return the size of the session in the reply to a command of OPENING, whose record has `size`."""
        return size + self._opened(command.digest)  # type: ignore[union-attr]  # both have one

    def _cost(self, command: wire.Patch | wire.Rotate, size: int) -> int:
        """Return what a patch costs: its sizes, plus a surcharge for small containers, opened or brought."""
        digest = command.digest
        stored = self._table.sessions.get(digest, b"")
        cost = size - _REST_BYTES + len(stored) + self._growth.get(digest, 0)
        if cost <= SMALL_BYTES:
            return cost
        return cost + _extra_bytes(stored) + sum([_extra_bytes(value) for _, value in command.set])

    def _opened(self, digest: bytes) -> int:
        """Return how large the session will be once everything logged so far is applied."""
        stored = self._table.sessions.get(digest)
        return (0 if stored is None else len(stored)) + self._growth.get(digest, 0)


def _label_objection(label: str) -> str:
    """Return what is wrong with a label, "" if nothing is. Listings rely on its length in bytes."""
    # Its characters were counted when it was decoded.
    if label.isascii() or (size := text_bytes(label)) <= LABEL_BYTES_MAX:
        return ""
    return f"a label has at most {LABEL_BYTES_MAX} bytes in UTF-8, this one has {size}"


def _user_objection(user_id: str | None) -> str:
    """Return what is wrong with a user id, "" if nothing is."""
    if user_id is None or (user_id and user_id.isascii()):
        return ""
    if 1 <= (size := text_bytes(user_id)) <= USER_ID_BYTES_MAX:
        return ""
    return f"a user id has 1 to {USER_ID_BYTES_MAX} bytes in UTF-8, this one has {size}"


def _extra_bytes(data: bytes) -> int:
    if len(data) <= SMALL_BYTES:
        return 0
    return max(_OPENING_BYTES * openings(data), _walked_bytes(data))


def _walked_bytes(data: bytes) -> int:
    """Return how many bytes to add so that plain data of that size takes as long to open."""
    if len(data) >= _LARGE_BYTES:
        return 0
    try:
        return _WALKED_WEIGHT * len(data) if plain_value(data, 0) is NOT_PLAIN else 0
    except MalformedError:
        return 0


def _malformed(step: Step, command: wire.Patch | wire.Rotate) -> wire.Failed | None:
    """Return a refusal if no session may hold these values; count how much was read in Python."""
    try:
        if command.user is not None and (objection := _user_objection(command.user[0])):
            return wire.Failed(command.request_id, wire.FailureCode.INVALID, objection)
        paths = len(command.set) + len(command.unset)
        if isinstance(command, wire.Patch):
            paths += len(command.expect)
            step.walked_items += check_values(command.set, command.expect)
        else:
            step.walked_items += check_values(command.set)
        if paths > wire.PATHS_MAX:
            detail = f"a patch names at most {wire.PATHS_MAX} paths, this one {paths}"
            return wire.Failed(command.request_id, wire.FailureCode.INVALID, detail)
    except MalformedError as error:
        step.walked_items += error.walked_items
        return wire.Failed(command.request_id, wire.FailureCode.INVALID, str(error))
    return None


def refused_by_disk(command: Write, slot: str) -> wire.EncodedReply | None:
    """Return why a command is not logged while the disk of that slot is nearly full, unless it ends.

    None without a slot.
    """
    if not slot or is_ending(command):
        return None
    reason = f"the disk of actor {slot} is nearly full: make room there, or give the node a larger disk"
    if command.age_ms:
        # An earlier attempt may still be on its way here, so nobody can say that nothing was applied.
        return wire.Overloaded(command.request_id, reason)
    return wire.Failed(command.request_id, wire.FailureCode.FULL, reason)
