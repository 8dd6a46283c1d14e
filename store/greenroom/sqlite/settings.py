"""What a store of one file was given."""

from typing import NamedTuple


class Settings(NamedTuple):
    """The options of a `SqliteStore`, checked. `clean_seconds` is how often it looks for expired sessions."""

    path: str
    synchronous: str
    deadline_seconds: float
    operations_max: int
    clean_seconds: float
