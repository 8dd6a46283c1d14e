"""The passphrase of an authority's key, from a file or the terminal."""

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

from greenroom.errors import UsageError
from greenroom_cluster.certificates.passphrases import check_passphrase, read_passphrase


def new_passphrase(file: Path | None, *, none: bool) -> bytes | None:
    """Return the passphrase for a new key; None if it is to have none. Raises UsageError."""
    if none and file is not None:
        raise UsageError("--no-passphrase and --passphrase-file exclude each other: leave out one")
    if none:
        return None
    if file is not None:
        passphrase = read_passphrase(file)
        check_passphrase(passphrase, f"--passphrase-file: the first line of {file}")
        return passphrase
    if not _at_terminal():
        raise UsageError(
            "there is no terminal to ask for a passphrase: name a file with --passphrase-file, or say "
            "--no-passphrase"
        )
    passphrase = getpass.getpass("New passphrase of the authority's key: ").encode()
    check_passphrase(passphrase, "the passphrase")
    if getpass.getpass("Once more: ").encode() != passphrase:
        raise UsageError("the two differ: nothing was made")
    return passphrase


def passphrase_of(file: Path | None) -> Callable[[], bytes]:
    """Return what gets the passphrase of an authority's key, once, when it is needed."""
    known: list[bytes] = []

    def ask() -> bytes:
        if not known:
            if file is not None:
                known.append(read_passphrase(file))
            elif _at_terminal():
                known.append(getpass.getpass("Passphrase of the authority's key: ").encode())
            else:
                raise UsageError(
                    "the authority's key has a passphrase, and there is no terminal to ask for it: name a "
                    "file with --passphrase-file"
                )
        return known[0]

    return ask


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
