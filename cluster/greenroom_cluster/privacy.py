"""What a process holds stays in it: private keys, and sessions in clear."""

import ctypes
import os
import resource

_SET_DUMPABLE = 4


def keep_to_itself() -> None:
    """Let this process leave no core dump, and nobody but root read its memory or environment.

    Processes of the same user cannot either, so what broke into one of them does not get the keys of others.
    Call it anew after an exec, which forgets the second half.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_SET_DUMPABLE, 0, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
