"""The log of connections that are refused or ended, because of who is at their other end.

Whoever can reach a port can cause these lines, so there is one limit for all of them.
"""

from collections import Counter
from typing import Protocol

import structlog

from greenroom.tls.standing import Proven
from greenroom_cluster.links.handshake import NOT_ALLOWED, SECRET_REQUIRED, TLS_REQUIRED
from greenroom_cluster.links.places import TOO_MANY_OF_ONE
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.tokens.table import Bearer

UNABLE = "no-secret"
"""The code of our own lack: a secret has to be proven, and we have none to judge proofs by."""
GUESSING = "too-many-failures"
"""The code of who guesses tokens: at most so many guesses of a host are told one by one."""
UNTRUSTED = "tls"
"""The code of who has no certificate that counts."""

# Who is refused for anything else has most likely the wrong address.
_WARNED_OF = frozenset(
    {NOT_ALLOWED.code, SECRET_REQUIRED.code, TLS_REQUIRED.code, UNTRUSTED, TOO_MANY_OF_ONE}
)
_limited_log = LimitedLog(structlog.get_logger(__name__))

refused: Counter[str] = Counter()
"""How many connections this process has refused or ended so, by code."""


class Refused(Protocol):
    """A connection, as the log names it."""

    remote: str


def tell_refused(connection: Refused, code: str, detail: str, *, number: int = 0) -> None:
    """Log that a connection is refused or ended, and why. `number`: as a listener counts them."""
    refused[code] += 1
    known = {"number": number} if number else {}
    fields: dict[str, object] = {"remote": connection.remote, **known, "reason": code, "detail": detail}
    if code == UNABLE:
        _limited_log.error("connection_refused", **fields)
    elif code in _WARNED_OF:
        _limited_log.warning("connection_refused", **fields)
    else:
        _limited_log.info("connection_refused", **fields)


def tell_crowded(code: str) -> None:
    """Log that somebody is refused because there are too many: nothing that they have done."""
    refused[code] += 1
    _limited_log.warning("connection_refused", reason=code)


def tell_guessing(host: str) -> None:
    """Log that somebody is refused at whose host too much was shown that is no token."""
    refused[GUESSING] += 1
    detail = "ten hellos from there within a minute held no token that is known"
    _limited_log.warning("connection_refused", remote=host, reason=GUESSING, detail=detail)


def tell_not_allowed(connection: Refused, proven: Proven | Bearer, objection: str) -> None:
    """Log that who is at the other end counts no more, by a clause."""
    tell_refused(connection, NOT_ALLOWED.code, f"{proven.identity.uri}: {objection}")
