"""tractor as our supervisors use it: no other user of the host can speak to a supervisor or its children.

tractor authenticates no one, and any caller can end a supervisor's work by `self.cancel`. How others are kept
away depends on tractor's version: `socket_pairs` replaces internals of 0.1.0a5, the last release and the one
we pin; `private_sockets` is for later versions, and uses only tractor's documented options.

Neither is trusted. Once tractor runs, in a supervisor and in every child, `check_listeners` asks the kernel
where the process listens, and ends it before it does any work if others can reach that.
"""

import warnings
from typing import Any

from greenroom_cluster.runtime.listening import Listeners

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # tractor 0.1.0a5 imports trio.MultiError
    import tractor

# A module in tractor 0.1.0a5, a package in its successors.
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

    Once the process has connected, that task waits, shielded, for the end of the nursery of processes. If
    `start_actor` is cancelled at that moment, it waits for that task, and the nursery waits for
    `start_actor`.
    """
    processes._join_procs.set()  # noqa: SLF001  tractor has no public name for it
