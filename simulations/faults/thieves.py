"""Somebody who has copied the tokens of apps, and knows every address.

Within TLS it is served as these apps until their tokens are revoked, and then no more. It tries them for
other roles and in plaintext, guesses others, and shows none at all. Whether it may be served is judged where
it is, by the `TokenBook`.
"""

from enum import Enum, auto
from typing import Any

from msgspec.structs import replace

from greenroom import wire
from greenroom.framing import encode_greeting
from greenroom.tokens import Token, new_token
from simulations.cluster.connections import hello
from simulations.cluster.stage import Stage
from simulations.cluster.tokens import TokenBook, text_of
from simulations.kernel.network import End
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

_EVERY_NS = 25 * MILLISECOND
_OPEN_MAX = 4
_OTHER_ROLES = (wire.ROLE_PEER, wire.ROLE_ADMIN)


class _Way(Enum):
    """What it tries: a token that it has copied, or something else."""

    STOLEN = auto()
    OTHER_ROLE = auto()
    PLAINTEXT = auto()
    WRONG_SECRET = auto()
    UNKNOWN = auto()
    NOTHING = auto()


class _Hand(Process):
    """A process of the thief; `plaintext`: it speaks no TLS."""

    def __init__(self, stage: Stage, *, plaintext: bool) -> None:
        super().__init__(stage.network, stage.network.machine("thief"), "thief", stage.apart)
        self.plaintext = plaintext


class Thief:
    """That user, with what it has copied."""

    def __init__(self, stage: Stage, book: TokenBook) -> None:
        self._stage = stage
        self._book = book
        self._random = stage.apart
        self._hands = {plaintext: _Hand(stage, plaintext=plaintext) for plaintext in (False, True)}
        self._open: list[End] = []

    def start(self) -> None:
        """Begin."""
        self._stage.timeline.after(_EVERY_NS, self._go_on)

    def _go_on(self) -> None:
        if self._stage.healing:
            return
        self._stage.timeline.after(_EVERY_NS, self._go_on)
        address, target = self._random.choice(self._targets())
        way = self._random.choice(list(_Way))
        role = self._random.choice(_OTHER_ROLES) if way is _Way.OTHER_ROLE else wire.ROLE_CLIENT
        greeting = hello(role, self._random.randbytes(16), target)
        greeting = replace(greeting, auth=self._shown(way))
        _Try(self, self._hands[way is _Way.PLAINTEXT], address, greeting)

    def _targets(self) -> list[tuple[str, bytes]]:
        targets = [(node.address, b"") for node in self._stage.supervisors.values()]
        targets += [(actor.address, key) for key, actor in self._stage.map.actors.items()]
        return [*targets, (self._stage.coordinator.address, b"")]

    def _shown(self, way: _Way) -> bytes:
        def guess(token_id: str) -> Token:
            return new_token(token_id, self._random.randbytes)

        match way:
            case _Way.WRONG_SECRET:
                return text_of(guess(self._random.choice(self._book.ids())))
            case _Way.UNKNOWN:
                return text_of(guess("nobody"))
            case _Way.NOTHING:
                return b""
            case _:
                return text_of(self._random.choice(self._book.stolen))

    def keep(self, end: End) -> None:
        """Keep a connection that is served, as long as that goes."""
        self._open = [*(each for each in self._open if each.open), end]
        if len(self._open) > _OPEN_MAX:
            self._stage.network.close(self._open.pop(0), reset=False)


class _Try:
    """One connection that the thief opens."""

    def __init__(self, thief: Thief, hand: _Hand, address: str, greeting: wire.Hello) -> None:
        self._thief = thief
        self._hand = hand
        self._greeting = greeting
        hand.network.connect(hand, address, self._opened, _ignore, "thief")

    def _opened(self, end: End) -> None:
        end.on_data = _ignore
        end.on_closed = _ignore
        self._hand.network.send(end, encode_greeting(self._greeting))
        self._thief.keep(end)


def steal(stage: Stage) -> None:
    """Let a thief begin where apps have tokens."""
    book = stage.network.tokens
    if book is not None and book.stolen:
        Thief(stage, book).start()


def _ignore(*_: Any) -> None:
    pass
