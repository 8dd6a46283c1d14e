"""Imported by tractor in a child before anything else of ours: spares every start a third of its work.

structlog loads rich and pygments, for pretty tracebacks, where they are installed. A child's tracebacks
are plain (`greenroom_cluster.logs`), and how soon an actor is back counts.
"""

import sys

if sys.modules["__main__"].__spec__ is not None and sys.modules["__main__"].__spec__.name == "tractor._child":
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: known to be missing
