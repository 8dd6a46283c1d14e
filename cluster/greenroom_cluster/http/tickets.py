"""What a browser shows in place of a token, which it cannot send when somebody follows a link.

A ticket is random, and known to one process: one that another process on the host got hold of, for a browser
sends cookies to every port of a host, opens the dashboard of this one, and nothing after its end. It stands
for the token that was shown for it, which is judged anew each time.
"""

import secrets
from dataclasses import dataclass

import trio

from greenroom_cluster.http.door import DASHBOARD_PATH

TICKETS_MAX = 64
TICKET_SECONDS = 12 * 3600.0
_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Issued:
    authorization: str
    until: float

    def __repr__(self) -> str:
        return "<ticket>"


class Tickets:
    """The tickets of one port. One more than there may be ends the oldest."""

    def __init__(self) -> None:
        self._issued: dict[str, _Issued] = {}

    def issue(self, authorization: str) -> str:
        """Return a new ticket, which stands for this header."""
        while len(self._issued) >= TICKETS_MAX:
            del self._issued[next(iter(self._issued))]
        ticket = secrets.token_urlsafe(_BYTES)
        self._issued[ticket] = _Issued(authorization, trio.current_time() + TICKET_SECONDS)
        return ticket

    def authorization(self, ticket: str) -> str:
        """Return the header that a ticket stands for; empty if it is unknown, or was issued too long ago."""
        issued = self._issued.get(ticket)
        if issued is None or trio.current_time() >= issued.until:
            self.end(ticket)
            return ""
        return issued.authorization

    def end(self, ticket: str) -> None:
        """End a ticket, if there is such a one."""
        self._issued.pop(ticket, None)


def cookie_name(port: int) -> str:
    """Return the name of the cookie for a port: a browser keeps those of all ports of a host together."""
    return f"greenroom_dashboard_{port}"


def ticket_in(header: str, port: int) -> str:
    """Return the ticket in a cookie header; empty if there is none.

    A browser sends the cookies of every other app of the host too, whatever these put into theirs. The
    standard library gives up at the first that it does not understand.
    """
    for part in header.split(";"):
        name, _, value = part.strip(" \t").partition("=")
        if name == cookie_name(port):
            return value
    return ""


def set_cookie(ticket: str, port: int, *, secured: bool) -> str:
    """Return the header that gives a browser a ticket, until it is closed."""
    secure = "; Secure" if secured else ""
    return f"{cookie_name(port)}={ticket}; Path={DASHBOARD_PATH}; HttpOnly; SameSite=Strict{secure}"


def drop_cookie(port: int, *, secured: bool) -> str:
    """Return the header that has a browser forget its ticket."""
    return f"{set_cookie('', port, secured=secured)}; Max-Age=0"
