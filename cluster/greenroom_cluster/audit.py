"""What is told of every command of an operator: who gave it, from where, and what came of it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from greenroom import wire
from greenroom.identities import Identity
from greenroom_cluster.coordination.messages import Accepted, DeclareDead, ForgetNode, Rejected, RemoveNode
from greenroom_cluster.shard.clients.operations import (
    CopyShard,
    EndSession,
    EndSessions,
    Freeze,
    ListSessions,
)

COMMANDS: Mapping[type[wire.Frame], str] = {
    ForgetNode: "forget-node",
    DeclareDead: "declare-dead",
    RemoveNode: "remove-node",
    wire.DropRecord: "drop-record",
    CopyShard: "copy-shard",
    Freeze: "freeze",
    EndSessions: "end-sessions",
    ListSessions: "list-sessions",
    EndSession: "end-session",
}
"""Of `remove-node` a node that has drained is the author. Parts of a copy after the first are no commands."""

BY_NODES = frozenset({"remove-node"})

SUMMED = frozenset({"copy-shard"})
"""A backup gives these once for each shard: the first is told at once, and the others together."""
SUM_SECONDS = 10.0
"""How long others are summed up, while more of them come."""

# Not the user's id: logs hold nothing of sessions.
_FIELDS = ("name", "shard", "epoch", "sequence", "namespace")
_DETAIL_CHARS = 200

Fields: TypeAlias = dict[str, Any]


class Line(msgspec.Struct, frozen=True):
    """One line of the audit."""

    who: str
    remote: str
    command: str
    outcome: str
    about: Fields

    def fields(self) -> Fields:
        """Return it as the fields of a log event."""
        told = {"who": self.who, "remote": self.remote, "command": self.command, "outcome": self.outcome}
        return {**told, **self.about}


def author(identity: Identity | None, *, on_loopback: bool) -> str:
    """Return who is at the other end of a connection, as far as that was proven."""
    if identity is not None:
        return f"{identity.role}/{identity.name}"
    return "loopback user" if on_loopback else "unproven"


class Audit:
    """The commands of one connection. A command that is never answered gets a line at `close`.

    Those that are summed up get one for each outcome, with how many they were and of which shards.
    """

    def __init__(self, who: str, remote: str) -> None:
        self._who = who
        self._remote = remote
        self._asked: dict[int, tuple[str, Fields]] = {}
        # By what was done, and what came of it: the shards that no line has told of yet.
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._sum_due = 0.0

    def waits(self) -> bool:
        """Whether a command is still to be answered."""
        return bool(self._asked)

    def asked(self, messages: Iterable[Any]) -> None:
        """Note the commands among these messages."""
        for message in messages:
            command = COMMANDS.get(type(message))
            if command is not None and not getattr(message, "part", 0):
                about = {name: getattr(message, name) for name in _FIELDS if hasattr(message, name)}
                self._asked[message.request_id] = command, about

    def answered(self, replies: Iterable[Any], now_seconds: float) -> list[Line]:
        """Return the lines that are due, now that these replies have ended commands."""
        lines = self._summed() if self._sums and now_seconds >= self._sum_due else []
        for reply in replies:
            known = self._asked.pop(getattr(reply, "request_id", -1), None)
            if known is not None:
                if not self._sums:
                    self._sum_due = now_seconds + SUM_SECONDS
                lines += self._lines(*known, outcome_of(reply))
        return lines

    def close(self, outcome: str = "unanswered") -> list[Line]:
        """Return the lines of all that has none yet; what got no answer has this outcome."""
        asked, self._asked = self._asked, {}
        lines = [line for each in asked.values() for line in self._lines(*each, outcome)]
        return [*lines, *self._summed()]

    def _lines(self, command: str, about: Fields, outcome: str) -> list[Line]:
        """Return the line of a command; none if it is one of those that are told together."""
        if command in SUMMED:
            told = self._sums.get((command, outcome))
            if told is not None:
                told.append(about["shard"])
                return []
            self._sums[command, outcome] = []
        return [Line(self._who, self._remote, command, outcome, about)]

    def _summed(self) -> list[Line]:
        sums, self._sums = self._sums, {}
        return [
            Line(self._who, self._remote, *key, {"count": len(shards), "shards": ranges(shards)})
            for key, shards in sums.items()
            if shards
        ]


def ranges(numbers: Iterable[int]) -> str:
    """Return what numbers there are, in order, as `0-3,7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def outcome_of(reply: Any) -> str:
    """Return what a reply says of a command: "done", or why not."""
    match reply:
        case Rejected(reason=reason) | wire.Overloaded(reason=reason):
            return reason[:_DETAIL_CHARS]
        case wire.Failed(detail=detail):
            return detail[:_DETAIL_CHARS] or "refused"
        case Accepted():
            return "done"
        case wire.Redirect() | wire.Unknowable():
            return type(reply).__name__.lower()
        case _:
            return "done"
