"""The arithmetic of idle and absolute lifetimes, in microseconds. Pure."""

import re
from typing import NamedTuple

from greenroom.errors import UsageError
from greenroom.options import LOGIN
from greenroom.sessions import StoredSession

_MICROS = 1_000_000
_TERMS = re.compile(r"(?:\.i([0-9]{1,16}))?(?:\.p([01]))?")


class Terms(NamedTuple):
    """The lifetime that a login has asked for its own session; None: that of the `Session`.

    The terms are in the signed cookie, after the id: see `docs/decisions/remember-me.md`.
    """

    idle_us: int | None = None
    persistent: bool | None = None

    def text(self) -> str:
        """Return the text after the id; empty for the usual session."""
        idle = "" if self.idle_us is None else f".i{self.idle_us}"
        return idle if self.persistent is None else f"{idle}.p{self.persistent:d}"


USUAL = Terms()
"""The terms of a session that has none of its own."""


def parted(text: str) -> tuple[str, Terms]:
    """Return the id and the terms in the text of a cookie that is known to be signed here."""
    session_id, dot, _ = text.partition(".")
    if not dot:
        return text, USUAL  # the usual
    found = _TERMS.fullmatch(text, len(session_id))
    if found is None:
        return text, USUAL
    idle, persistent = found.groups()
    return session_id, Terms(
        None if idle is None else int(idle), None if persistent is None else persistent == "1"
    )


class Lifetimes:
    """The lifetimes of one app.

    `threshold_us` is how much time a session in use has left when it is extended. Five sixths: at most six
    writes in an idle time, and an end at most a sixth of it too early.
    """

    __slots__ = ("absolute_us", "idle_us", "threshold_us")

    def __init__(self, idle_us: int, absolute_us: int | None) -> None:
        self.idle_us = idle_us
        self.absolute_us = absolute_us
        self.threshold_us = idle_us * 5 // 6

    def under(self, terms: Terms) -> "Lifetimes":
        """Return those of a session with these terms."""
        return self if terms.idle_us is None else Lifetimes(terms.idle_us, self.absolute_us)

    def terms_of(self, idle_seconds: float | None, persistent: bool | None) -> Terms:  # noqa: FBT001  as login
        """Return the terms of a login with these options.

        Raises UsageError for an invalid option, and for an idle time beyond the absolute lifetime: the
        session could not live that long.
        """
        if idle_seconds is None and persistent is None:
            return USUAL
        idle_seconds = LOGIN.checked("idle_seconds", idle_seconds)
        persistent = LOGIN.checked("persistent", persistent)
        idle_us = None if idle_seconds is None else max(1, round(idle_seconds * _MICROS))
        if idle_us is not None and self.absolute_us is not None and idle_us > self.absolute_us:
            raise UsageError(
                "idle_seconds of a login lies within absolute_seconds of its Session, which ends this "
                "session too: raise that, or ask for less"
            )
        return Terms(idle_us, persistent)

    def expiry_us(self, now_us: int, absolute_us: int | None) -> int:
        """Return when a session used now ends unless it is extended."""
        idle_end_us = now_us + self.idle_us
        return idle_end_us if absolute_us is None else min(idle_end_us, absolute_us)

    def absolute_expiry_us(self, now_us: int) -> int | None:
        """Return when a session that is created now, or logs in now, ends however it is used."""
        return None if self.absolute_us is None else now_us + self.absolute_us

    def extension_us(self, now_us: int, stored: StoredSession) -> int | None:
        """Return the new end of a session in use; None if it has enough time left, or can get no more."""
        if stored.expires_us - now_us >= self.threshold_us:
            return None
        expires_us = self.expiry_us(now_us, stored.absolute_us)
        return expires_us if expires_us > stored.expires_us else None


def lifetimes_of(idle_seconds: float, absolute_seconds: float | None) -> Lifetimes:
    """Return them. Raises UsageError for an idle time beyond the lifetime."""
    if absolute_seconds is not None and idle_seconds > absolute_seconds:
        raise UsageError(
            f"idle_seconds ({idle_seconds:g}) lies within absolute_seconds ({absolute_seconds:g}), at which "
            "every session ends: raise that, or ask for less idle time"
        )
    return Lifetimes(
        round(idle_seconds * _MICROS),
        None if absolute_seconds is None else round(absolute_seconds * _MICROS),
    )
