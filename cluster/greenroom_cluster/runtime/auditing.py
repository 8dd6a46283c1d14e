"""The audit in the log: every command of an operator at this process, with its outcome."""

from collections.abc import Callable, Iterable
from typing import Any

import structlog
import trio

from greenroom.loopback import is_loopback
from greenroom_cluster.audit import BY_NODES, Audit, Line, author
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.sockets import remote_host

_log = structlog.get_logger(__name__)


def audit_of(connection: FramedConnection) -> Audit:
    """Return the audit of a connection whose other side has proven who it is, if it has to."""
    proven = connection.proven
    identity = None if proven is None else proven.identity
    host = remote_host(connection.remote)
    return Audit(author(identity, on_loopback=is_loopback(host)), connection.remote)


def tell(lines: Iterable[Line]) -> None:
    """Log these."""
    for line in lines:
        if line.command in BY_NODES:
            _log.info("operator_command", **line.fields())
        else:
            _log.warning("operator_command", **line.fields())


class Audited:
    """Replies to an operator, whose commands are told once they are answered."""

    def __init__(self, connection: FramedConnection) -> None:
        self._connection = connection
        self._audit = audit_of(connection)

    def noting(self, handle: Callable[[list[Any]], None]) -> Callable[[list[Any]], None]:
        """Return what to hand the operator's messages to."""

        def take(messages: list[Any]) -> None:
            self._audit.asked(messages)
            handle(messages)

        return take

    def send(self, messages: list[Any]) -> None:
        """Send these to the operator."""
        tell(self._audit.answered(messages, trio.current_time()))
        self._connection.send(messages)

    def close(self) -> None:
        """Tell of what was not answered, because the connection has ended."""
        tell(self._audit.close())
