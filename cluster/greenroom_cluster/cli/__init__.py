"""The command `greenroom`."""

from greenroom_cluster.cli.commands import main

__all__ = ["main"]
