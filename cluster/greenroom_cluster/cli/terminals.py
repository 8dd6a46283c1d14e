"""What a stream can do if it is a terminal."""

import os
from typing import TextIO


def moves_cursor(stream: TextIO) -> bool:
    """Whether what is shown on a stream can be overwritten."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb"}
