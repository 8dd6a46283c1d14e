"""Whether a file with a secret is private: no user but its owner can open it. Pure.

One exception: a file that root owns, and that its group may read and do no more with. So Kubernetes hands a
secret to a container that does not run as root, and whoever is in that group root has put there.
"""

import stat

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_THAN_READERS = _OTHERS & ~stat.S_IRGRP
_ROOT = 0


def is_private(mode: int) -> bool:
    """Whether a file of this mode can be opened by its owner alone."""
    return not mode & _OTHERS


def objection(mode: int, owner: int, user: int) -> str:
    """Return what is wrong with a secret in a file, to follow its path; empty if nothing is.

    `owner` is whose file it is, `user` who wants to read it.
    """
    lent = owner == _ROOT != user
    if not mode & (_OTHERS_THAN_READERS if lent else _OTHERS):
        return ""
    return f"has the mode {stat.S_IMODE(mode):04o}, so other users may read or write it: chmod 600 it"
