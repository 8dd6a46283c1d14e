"""Entry of a supervised process: `python -m greenroom_cluster.runtime.child FD SUPERVISOR ...`.

`FD` is its end of the pair of sockets to its supervisor, whose process id is `SUPERVISOR`. The rest are the
arguments of tractor's own entry, which runs once tractor has been given that socket instead of an address.
"""

import runpy
import sys

from greenroom_cluster.runtime.lean_child import load_less


def main() -> None:
    """Run tractor's entry on the inherited socket."""
    # First, because it affects what the imports below load.
    load_less()
    from greenroom_cluster.runtime.processes import parent_pidfd

    fd, supervisor_pid = (int(argument) for argument in sys.argv[1:3])
    _run(fd, parent_pidfd(supervisor_pid), sys.argv[3:])


def run_forked(arguments: list[str], fds: list[int]) -> None:
    """Do the same in a process that a starter has forked, see `runtime.starter`."""
    fd, supervisor = fds
    _run(fd, supervisor, arguments)


def _run(fd: int, supervisor: int, arguments: list[str]) -> None:
    from greenroom_cluster.runtime.socket_pairs import prepare_child

    prepare_child(fd, supervisor)
    sys.argv[1:] = arguments
    runpy.run_module("tractor._child", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
