"""Called first in processes that others start and watch: spares each start a quarter of its work.

structlog loads rich and pygments, for pretty tracebacks, where they are installed. The tracebacks of such a
process are plain (`greenroom_cluster.logs`), and how soon it is back counts.
"""

import sys


def do_without_rich() -> None:
    """Make rich count as not installed in this process."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: known to be missing
