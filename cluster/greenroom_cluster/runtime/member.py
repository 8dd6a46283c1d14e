"""Entry of a coordinator or node of a local cluster: `python -m greenroom_cluster.runtime.member NAME`.

Its settings are a document on its standard input, not arguments, which any user of the host can read. `NAME`
only shows in `ps` which process this is.
"""

import os
import sys
from functools import partial

from greenroom_cluster.runtime.lean_child import load_less

_COORDINATOR_SECONDS = 30.0
"""A local cluster's coordinator is started with its nodes, and who starts them tells what becomes of it."""


def main() -> None:
    """Run the member. A user's mistake is one line on stderr, as on the command line."""
    # First, because it affects what the imports below load.
    load_less()
    _run(sys.argv[1], sys.stdin.fileno())


def run_forked(arguments: list[str], fds: list[int]) -> None:
    """Do the same in a process that a starter has forked, see `runtime.starter`."""
    from greenroom_cluster.runtime.processes import heed_signals

    (name,) = arguments
    # As a process has it that was started in a group of its own.
    os.setpgid(0, 0)
    heed_signals()
    document, supervisor = fds
    _run(name, document, supervisor)


def _run(name: str, document: int, supervisor: int | None = None) -> None:
    from greenroom_cluster.exits import errors_told, leave_on_signals
    from greenroom_cluster.privacy import keep_to_itself
    from greenroom_cluster.runtime.starting import COORDINATION, NODE, open_starter_of_children

    leave_on_signals()
    keep_to_itself()
    # Both, for only the settings say which it is, and a starter must not see them.
    with errors_told(), open_starter_of_children(name, NODE, COORDINATION):
        _run_settings(_read(document), supervisor)


def _read(document: int) -> bytes:
    with os.fdopen(document, "rb", closefd=document != sys.stdin.fileno()) as file:
        read = file.read()
    # Processes started by this one inherit its standard input, and must not find the settings there.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return read


def _run_settings(document: bytes, supervisor: int | None) -> None:
    import trio

    from greenroom_cluster import logs
    from greenroom_cluster.config import NodeSettings
    from greenroom_cluster.runtime.coordination_process import run_coordinator_process
    from greenroom_cluster.runtime.documents import Membership, decode_settings
    from greenroom_cluster.runtime.node_process import run_node
    from greenroom_cluster.runtime.processes import exit_with, parent_pidfd

    membership = decode_settings(document, Membership)
    exit_with(parent_pidfd(membership.parent_pid) if supervisor is None else supervisor)
    settings = membership.settings
    if isinstance(settings, NodeSettings):
        logs.configure(settings.process.logs, settings.name)
        trio.run(partial(run_node, settings, patience_seconds=_COORDINATOR_SECONDS))
    else:
        logs.configure(settings.process.logs, logs.COORDINATOR)
        trio.run(run_coordinator_process, settings)


if __name__ == "__main__":
    main()
