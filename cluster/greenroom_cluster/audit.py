"""What is told of every command of an operator: who gave it, from where, and what came of it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from greenroom import wire
from greenroom.identities import Identity
from greenroom_cluster.coordination.messages import Accepted, DeclareDead, ForgetNode, Rejected, RemoveNode
from greenroom_cluster.shard.clients.operations import CopyShard, Freeze

COMMANDS: Mapping[type[wire.Frame], str] = {
    ForgetNode: "forget-node",
    DeclareDead: "declare-dead",
    RemoveNode: "remove-node",
    wire.DropRecord: "drop-record",
    CopyShard: "copy-shard",
    Freeze: "freeze",
}
"""Of `remove-node` a node that has drained is the author. Parts of a copy after the first are no commands."""

BY_NODES = frozenset({"remove-node"})

_FIELDS = ("name", "shard", "epoch", "sequence")
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
    """The commands of one connection. A command that is never answered gets a line at `close`."""

    def __init__(self, who: str, remote: str) -> None:
        self._who = who
        self._remote = remote
        self._asked: dict[int, tuple[str, Fields]] = {}

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

    def answered(self, replies: Iterable[Any]) -> list[Line]:
        """Return the lines of those commands that these replies end."""
        lines = []
        for reply in replies:
            known = self._asked.pop(getattr(reply, "request_id", -1), None)
            if known is not None:
                lines.append(self._line(*known, outcome_of(reply)))
        return lines

    def close(self, outcome: str = "unanswered") -> list[Line]:
        """Return the lines of all that got no answer."""
        asked, self._asked = self._asked, {}
        return [self._line(*each, outcome) for each in asked.values()]

    def _line(self, command: str, about: Fields, outcome: str) -> Line:
        return Line(self._who, self._remote, command, outcome, about)


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
