"""`python -m greenroom_cluster` is the command `greenroom`."""

import importlib
import sys

from greenroom_cluster.runtime.lean_child import do_without_rich

if __name__ == "__main__":
    if "--exit-with-parent" in sys.argv:
        do_without_rich()
    importlib.import_module("greenroom_cluster.cli").main()
