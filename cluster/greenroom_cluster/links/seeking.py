"""While one of several addresses is connected to, the others are dialled aside: one of them may serve by now.

Of several coordinators one serves at a time, and those that stand by do not listen. One that hangs, or whose
host is cut off, ends no connection: only the fact that another one answers tells that it is over. So whoever
answers at another address is gone to, and costs one refused attempt twice a second while nobody does.

Except who was of no use when last gone to: one mistake in the options of a coordinator makes it that of
another cluster, and whoever went to it again and again would leave the coordinator of its own each time.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from greenroom.deadlines import NEVER_NS

SEEK_NS = 500_000_000
"""So often another address is dialled; one that does not answer, only once the former attempt is over."""
SHUN_NS = 60_000_000_000
"""For how long nobody is gone to who was of no use, while another one is connected to."""

# --- inputs ----------------------------------------------------------------------------------------------


class Held(msgspec.Struct, frozen=True):
    """A connection to this address is in use; `sender` has said hello on it."""

    address: str
    sender: bytes


class Released(msgspec.Struct, frozen=True):
    """No connection is in use."""


class Shunned(msgspec.Struct, frozen=True):
    """Who answers at this address is of no use, such as the coordinator of another cluster."""

    address: str


class Answered(msgspec.Struct, frozen=True):
    """Somebody has said hello where `Dial` has led; the connection stands."""

    address: str
    sender: bytes


class Unanswered(msgspec.Struct, frozen=True):
    """Nobody has."""

    address: str


class Tick(msgspec.Struct, frozen=True):
    """Time passed; due at `Seeking.next_deadline()`."""


SeekingInput: TypeAlias = Held | Released | Shunned | Answered | Unanswered | Tick

# --- effects ---------------------------------------------------------------------------------------------


class Dial(msgspec.Struct, frozen=True):
    """Connect to this address beside what is in use; bring `Answered` or `Unanswered`."""

    address: str


class Take(msgspec.Struct, frozen=True):
    """Use the connection that was answered in place of the one in use."""


class Drop(msgspec.Struct, frozen=True):
    """End the connection that was answered: it is of no use."""


SeekingEffect: TypeAlias = Dial | Take | Drop


class Seeking:
    """Which of these addresses to dial, and which answer to follow. Of one address alone it asks nothing."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._held: Held | None = None
        self._dialled: set[str] = set()
        # Until when.
        self._shunned: dict[str, int] = {}
        self._due_ns = NEVER_NS

    def step(self, now_ns: int, event: SeekingInput) -> list[SeekingEffect]:
        """Take one input; return the effects."""
        match event:
            case Held():
                self._held = event
                self._due_ns = now_ns + SEEK_NS if len(self._addresses) > 1 else NEVER_NS
            case Released():
                self._held, self._due_ns = None, NEVER_NS
            case Shunned(address=address):
                self._shunned[address] = now_ns + SHUN_NS
            case Answered(address=address):
                self._dialled.discard(address)
                is_of_use = self._is_another(event) and not self._is_shunned(address, now_ns)
                return [Take() if is_of_use else Drop()]
            case Unanswered(address=address):
                self._dialled.discard(address)
            case Tick() if self._held is not None and now_ns >= self._due_ns:
                return self._dial(now_ns, self._held.address)
        return []

    def next_deadline(self) -> int:
        """Return when a `Tick` is due."""
        return self._due_ns

    def _is_another(self, answer: Answered) -> bool:
        # One process may have several addresses, and the one that is held may have changed meanwhile.
        held = self._held
        return held is not None and answer.address != held.address and answer.sender != held.sender

    def _is_shunned(self, address: str, now_ns: int) -> bool:
        return now_ns < self._shunned.get(address, now_ns)

    def _dial(self, now_ns: int, held: str) -> list[SeekingEffect]:
        self._due_ns = now_ns + SEEK_NS
        others = [
            each
            for each in self._addresses
            if each != held and each not in self._dialled and not self._is_shunned(each, now_ns)
        ]
        self._dialled.update(others)
        return [Dial(each) for each in others]
