"""Checks of command-line arguments: seeds, numbers and files; each error says what to do instead."""

import argparse
from collections.abc import Callable
from pathlib import Path

from greenroom.errors import UsageError


def seeds(text: str) -> range:
    """Return the seeds that an argument names, "from:to" or one."""
    first, colon, last = text.partition(":")
    if not first.isdecimal() or (colon and not last.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FROM:TO, such as 0:200, nor one seed, such as 4711"
        )
    found = range(int(first), int(last) if colon else int(first) + 1)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed: TO comes after the last, so 0:200 are 200")
    return found


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def check_writable(path: Path | None, option: str) -> None:
    """Raise UsageError now if a file cannot be written later."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file with {option}") from None


def check_directory(path: Path, option: str) -> None:
    """Raise UsageError now if files cannot be written into a directory later."""
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write into {path}: {error.strerror}; name another directory with {option}"
        ) from None
