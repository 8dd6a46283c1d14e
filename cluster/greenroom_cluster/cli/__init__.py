"""The command `greenroom`."""

from greenroom_cluster.exits import leave_on_signals
from greenroom_cluster.privacy import keep_to_itself
from greenroom_cluster.runtime.lean_child import load_logs

__all__ = ["main"]


def main() -> None:
    """Run the command line. A signal before the command handles signals ends it quietly."""
    leave_on_signals()
    keep_to_itself()
    # First, because it affects what the imports below load.
    load_logs()
    from greenroom_cluster.cli.commands import main as run

    run()
