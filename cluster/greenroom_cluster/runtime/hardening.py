"""tractor as our supervisors use it: no other user of the host can speak to a supervisor or its children.

tractor authenticates no one, and any caller that says `self.cancel` ends a supervisor's work. How it is kept
out of reach depends on its version: `socket_pairs` for 0.1.0a5, the last release and the one we pin, whose
internals it replaces; `private_sockets` for what comes after, by tractor's documented options alone.

Neither is trusted. Once tractor runs, in a supervisor and in every child, the kernel is asked on what the
process listens (`check_listeners`), and anything that others can reach ends the process before it does work.
"""

import warnings
from typing import Any

from greenroom_cluster.runtime.listening import Listeners

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # tractor 0.1.0a5 imports trio.MultiError
    import tractor

# tractor 0.1.0a5 has its runtime in this module, its successors in a package.
if hasattr(tractor, "_actor"):
    from greenroom_cluster.runtime.socket_pairs import become_child, open_root, start_process
else:
    from greenroom_cluster.runtime.private_sockets import become_child, open_root, start_process

__all__ = [
    "become_child",
    "check_listeners",
    "open_root",
    "release_starter",
    "start_process",
    "tractor",
]


def check_listeners(known: Listeners, now: Listeners) -> None:
    """Raise RuntimeError if this process has begun to listen where another user could speak to it."""
    exposed = [listener for listener in now - known if listener.exposed]
    if exposed:
        from importlib.metadata import version  # slow, and for an error only

        places = ", ".join(sorted(listener.place for listener in exposed))
        raise RuntimeError(
            f"tractor {version('tractor')} listens at {places}, where any user of this host could command "
            "this process: install the version of tractor that greenroom-cluster asks for"
        )


def release_starter(processes: Any) -> None:
    """Let the task that started a process end. Call it once the process is dead.

    After the process has connected, that task waits, shielded, for the end of the nursery of processes. If
    `start_actor` is cancelled at that very moment, it waits for that task, and the nursery for `start_actor`.
    """
    processes._join_procs.set()  # noqa: SLF001  tractor has no public name for it
