"""tractor after 0.1.0a5, kept out of reach by its own options: Unix sockets in a private folder.

Only the supervisor's user may enter the folder, so the kernel keeps all other users of the host from its
sockets and from taking their names. Nothing of tractor is changed.

A child of such a tractor starts in tractor's own entry. So it begins to watch its supervisor, and to ignore
signals to the process group, only at its first step in our code; until then tractor itself ends it.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import tractor

from greenroom_cluster.runtime.processes import parent_pidfd, serve_supervisor

_TRANSPORT = "uds"
_SUPERVISOR = "supervisor.sock"
_folders: list[str] = []


@asynccontextmanager
async def open_root(name: str) -> AsyncIterator[None]:
    """Run tractor in this process, which is a supervisor."""
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:  # mode 0700
        _folders.append(folder)
        try:
            async with tractor.open_root_actor(
                name=name,
                registry_addrs=[(folder, _SUPERVISOR)],
                enable_transports=[_TRANSPORT],
                loglevel="critical",
            ):
                yield
        finally:
            _folders.remove(folder)


async def start_process(processes: Any, name: str, module: str) -> Any:
    """Start a child that runs functions of `module`; return tractor's portal to it."""
    # Paths of Unix sockets are limited in length, names of children are not.
    file = hashlib.blake2b(name.encode(), digest_size=8).hexdigest() + ".sock"
    address = (_folders[-1], file)
    return await processes.start_actor(
        name,
        bind_addrs=[address],
        enable_modules=[module],
        enable_transports=[_TRANSPORT],
        inherit_parent_main=False,
    )


def become_child(supervisor_pid: int) -> None:
    """Make this process a child of that supervisor: end with it, and leave signals to it."""
    serve_supervisor(parent_pidfd(supervisor_pid))
