"""Signs cookies by the secrets in a file, and follows the file as it changes.

The file is looked at once a second at most, as cookies are signed or verified; and at once if a cookie that
could be ours is refused, since another process may have read a new secret a moment earlier. A file that
cannot be used changes nothing but the log: the secrets that were read last stay.
"""

import logging
from collections.abc import Callable

from greenroom.errors import UsageError
from greenroom.file_watch import Watch
from greenroom.secret_file import SecretFile
from greenroom.web import secret_strength
from greenroom.web.cookies import CookieSigner, may_be_signed
from greenroom.web.lifetimes import USUAL, Terms

LOOK_US = 1_000_000
"""How often the file is looked at."""

_log = logging.getLogger("greenroom.web")


class FileSigner(CookieSigner):
    """See the module. `now_us` returns the present; `strict`: too short a secret is refused.

    Raises UsageError if the file cannot be used at the start.
    """

    def __init__(self, file: SecretFile, purpose: str, now_us: Callable[[], int], *, strict: bool) -> None:
        self._file = file
        self._now_us = now_us
        self._strict = strict
        content = file.read()
        if strict:
            secret_strength.check(content.secrets)
        self._watch = Watch((content.mark,), now_us(), LOOK_US)
        super().__init__(content.secrets, purpose)

    def sign(self, session_id: str, terms: Terms = USUAL) -> str:
        """Return the signed value of the cookie, by the first secret in the file."""
        self._look_if_due()
        return super().sign(session_id, terms)

    def read(self, signed: bytes) -> tuple[str, Terms] | None:
        """Return the id and its terms if one of the secrets in the file signed them, else None."""
        self._look_if_due()
        found = super().read(signed)
        if found is None and may_be_signed(signed) and self._look():
            found = super().read(signed)
        return found

    def reload(self) -> bool:
        """Read the file, changed or not; return False if it cannot be used, which the log explains."""
        try:
            content = self._file.read()
            if self._strict:
                secret_strength.refuse_short(content.secrets)
        except UsageError as error:
            _log.error("the secrets of before stay in use: %s", error)
            return False
        self._watch.has_changed((content.mark,))
        if self.replace(content.secrets):
            _log.info("%d secrets read from %s are in use", len(content.secrets), self._file.path)
        return True

    def _look_if_due(self) -> None:
        if self._watch.is_due(self._now_us()):
            self._look()

    def _look(self) -> bool:
        """Read the file if it has changed; return whether its secrets were taken. A bad one is told once."""
        return self._watch.has_changed((self._file.mark(),)) and self.reload()
