"""Whether a file with a secret is private: no user but its owner can open it. Pure."""

import stat

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_private(mode: int) -> bool:
    """Whether a file of this mode can be opened by its owner alone."""
    return not mode & _OTHERS


def objection(mode: int) -> str:
    """Return what is wrong with a secret in a file of this mode, to follow its path; empty if nothing is."""
    if is_private(mode):
        return ""
    return f"has the mode {stat.S_IMODE(mode):04o}, so other users may read or write it: chmod 600 it"
