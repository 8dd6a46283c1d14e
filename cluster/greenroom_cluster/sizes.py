"""Sizes as options give them: `512MiB`, or a number of bytes."""

import re

from greenroom.errors import UsageError

_SIZE = re.compile(r"([0-9]{1,18})\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def parse_size(option: str, text: str) -> tuple[int, str]:
    """Return a size in bytes, and the unit in which it was given. Raises UsageError, naming the option."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{option} is a whole number with the unit KiB, MiB, GiB or TiB, such as 512MiB, or of bytes; "
            f"it is {text!r}"
        )
    unit = found[2] or ""
    return int(found[1]) * _UNITS[unit.lower()], unit
