"""Passphrases of authorities' keys: from a file of this user alone, never an argument or a variable."""

import os
import stat
from pathlib import Path

from greenroom.errors import UsageError
from greenroom.private_files import is_private

CHARACTERS_MIN = 16
"""An encrypted key (PKCS8) stretches a passphrase little, so the passphrase itself must be hard to guess."""
_BYTES_MAX = 1024


def check_passphrase(passphrase: bytes, source: str) -> None:
    """Raise UsageError unless a new key may be encrypted with this."""
    if len(passphrase) < CHARACTERS_MIN:
        raise UsageError(f"{source} is too short: at least {CHARACTERS_MIN} characters")
    if len(passphrase) > _BYTES_MAX:
        raise UsageError(f"{source} is too long: at most {_BYTES_MAX} bytes")


def read_passphrase(path: Path) -> bytes:
    """Return the first line of a file that only this user can read. Raises UsageError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            # A pipe, such as <(...) of a shell, is nobody else's to read.
            if stat.S_ISREG(mode) and not is_private(mode):
                raise UsageError(
                    f"--passphrase-file: others can read {path}; set its mode with `chmod 600 {path}`, and "
                    "change the passphrase if they should not know it"
                )
            line = file.readline(_BYTES_MAX + 2)
    except OSError as error:
        raise UsageError(f"--passphrase-file: {path} cannot be read ({error.strerror})") from None
    passphrase = line.rstrip(b"\r\n")
    if not passphrase:
        raise UsageError(f"--passphrase-file: the first line of {path} is empty")
    return passphrase
