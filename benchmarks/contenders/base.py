"""What a contender does: keep sessions, each a dict, under string ids."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar


class NotReplicatedError(Exception):
    """The write was not confirmed by as many servers as it was asked to be."""


class Client(ABC):
    """A client of one contender in one process; made inside the running loop.

    `addresses` come from the servers that the catalogue names. Numbers given to operations are positions
    within the sessions chosen last.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions belong into the report."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.addresses = addresses
        self.ids: list[str] = []
        self.data: dict[str, Any] = {}

    async def open(self) -> None:
        """Connect, as far as that is not left to the first operation."""
        return

    async def close(self) -> None:
        """Disconnect."""
        return

    def choose(self, ids: Sequence[str], data: dict[str, Any]) -> None:
        """Prepare for operations on these sessions; `update` writes `data`."""
        self.ids = list(ids)
        self.data = data

    @abstractmethod
    async def create(self, session_ids: Sequence[str], data: dict[str, Any], expires_at: float) -> None:
        """Store new sessions, which expire at `expires_at` seconds since 1970."""

    @abstractmethod
    def get(self, number: int) -> Awaitable[object]:
        """Read and decode one session."""

    @abstractmethod
    def save(self, number: int, data: dict[str, Any]) -> Awaitable[object]:
        """Replace one session. Raises NotReplicatedError if asked for a replica and there was none."""

    @abstractmethod
    def patch(self, number: int) -> Awaitable[object]:
        """Change one key of one session, in whichever way the contender offers."""

    @abstractmethod
    async def data_of(self, number: int) -> dict[str, Any] | None:
        """Return what is stored, for checks."""

    def update(self, number: int) -> Awaitable[object]:
        """Replace one session by `data`."""
        return self.save(number, self.data)
