"""Called first in processes that log; it saves a quarter of the work of each start.

structlog loads rich and pygments, if installed, for pretty tracebacks, and Twisted to log for that. Our
processes log plain tracebacks (`greenroom_cluster.logs`), and should be back quickly after a restart.
"""

import sys
from typing import Any

_UNUSED = ("rich", "twisted")


def load_less() -> None:
    """Make rich and Twisted appear not to be installed in this process."""
    modules: dict[str, Any] = sys.modules
    for name in _UNUSED:
        modules.setdefault(name, None)  # known to be missing


def load_logs() -> None:
    """Import structlog without them; who needs them afterwards, as some commands do, finds them."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in _UNUSED if name not in modules]
    load_less()
    try:
        import structlog  # noqa: F401  it is imported for what follows
    finally:
        for name in hidden:
            del modules[name]
