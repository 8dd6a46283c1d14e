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
    from greenroom_cluster.exits import errors_told, leave_on_signals
    from greenroom_cluster.privacy import keep_to_itself

    leave_on_signals()
    keep_to_itself()
    with errors_told():
        _run(sys.stdin.buffer.read())


def _run(document: bytes) -> None:
    # Processes started by this one inherit its standard input, and must not find the settings there.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)

    import trio

    from greenroom_cluster import logs
    from greenroom_cluster.config import NodeSettings
    from greenroom_cluster.runtime.documents import Membership, decode_settings
    from greenroom_cluster.runtime.processes import exit_with_parent

    membership = decode_settings(document, Membership)
    exit_with_parent(membership.parent_pid)
    settings = membership.settings
    if isinstance(settings, NodeSettings):
        logs.configure(settings.process.logs, settings.name)
        from greenroom_cluster.runtime.node_process import run_node

        trio.run(partial(run_node, settings, patience_seconds=_COORDINATOR_SECONDS))
    else:
        logs.configure(settings.process.logs, logs.COORDINATOR)
        from greenroom_cluster.runtime.coordination_process import run_coordinator_process

        trio.run(run_coordinator_process, settings)


if __name__ == "__main__":
    main()
