"""The command `greenroom`."""

from greenroom_cluster.exits import leave_on_signals

__all__ = ["main"]


def main() -> None:
    """Run the command line. A signal before the command handles signals ends it quietly."""
    leave_on_signals()
    from greenroom_cluster.cli.commands import main as run

    run()
