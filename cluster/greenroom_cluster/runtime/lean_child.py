"""Called first in supervised processes; it saves a quarter of the work of each start.

structlog loads rich and pygments, if installed, for pretty tracebacks, and Twisted to log for that. A
supervised process logs plain tracebacks (`greenroom_cluster.logs`), and should be back quickly after a
restart.
"""

import sys
from typing import Any


def load_less() -> None:
    """Make rich and Twisted appear not to be installed in this process."""
    modules: dict[str, Any] = sys.modules
    for name in ("rich", "twisted"):
        modules.setdefault(name, None)  # known to be missing
