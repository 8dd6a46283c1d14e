"""The deny list: serial numbers of revoked certificates, one a line, in hexadecimal."""

import re
from collections.abc import Iterable
from pathlib import Path

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.certificates.examining import serial_text
from greenroom_cluster.certificates.holders import read_file
from greenroom_cluster.lasting_files import replace_file

_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}", re.ASCII)


def is_serial(text: str) -> bool:
    """Whether this is a serial number as `greenroom certs show` prints it."""
    return _SERIAL.fullmatch(text) is not None


def read_denied(path: Path) -> frozenset[str]:
    """Return the serial numbers on a deny list; none if there is no such file. Raises UsageError."""
    return frozenset(_serials(path, _text(path)))


def deny(path: Path, serials: Iterable[str]) -> int:
    """Put serial numbers on a deny list, and return how many were not on it. Raises GreenroomError."""
    text = _text(path)
    there = _serials(path, text)
    new = [serial for serial in dict.fromkeys(serials) if serial not in there]
    if new:
        if text and not text.endswith("\n"):
            text += "\n"
        try:
            replace_file(path, (text + "".join(f"{serial}\n" for serial in new)).encode())
        except OSError as error:
            raise GreenroomError(
                f"{path} could not be written ({error.strerror}), and is as before: name another with --deny"
            ) from error
    return len(new)


def _text(path: Path) -> str:
    return read_file(path).decode("utf-8", "replace") if path.exists() else ""


def _serials(path: Path, text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        # As servers read it: what follows # is a comment.
        serial = line.partition("#")[0].strip().replace(":", "")
        if serial and not is_serial(serial):
            raise UsageError(f"line {number} of {path} is no serial number in hexadecimal: mend or remove it")
        if serial:
            found.append(serial_text(int(serial, 16)))
    return found
