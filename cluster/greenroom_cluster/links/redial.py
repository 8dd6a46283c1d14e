"""A connection that is kept open: the order of dial, hello, use and reset, and the pauses between attempts.

Whatever ended a connection is a reason to try again, first almost at once, then after pauses that double
while nothing lasts. A connection that has ended is reset (linger 0) before its user hears of it and before
the next attempt, so nothing sent on it arrives later than what the next connection carries.
"""

from enum import IntEnum
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.negotiation import Agreement
from greenroom.proofs import Proof
from greenroom.tokens import Shown
from greenroom_cluster.links.handshake import Accepted, judge

DIAL_NS = 2_000_000_000
"""How long an attempt may take, until the hello of the other side is there."""
CONNECT_NS = 500_000_000
"""How long the connection itself may take, where there is another address: a lost host accepts none."""
BACKOFF_NS_MIN = 20_000_000
BACKOFF_NS_MAX = 500_000_000
LASTING_NS = 1_000_000_000
"""A connection that was up for so long proves that the other side serves: the next attempt comes at once."""

NOT_TRUSTED = "not-trusted"

# --- inputs ----------------------------------------------------------------------------------------------


class Opened(msgspec.Struct, frozen=True):
    """The connection that `Open` asked for stands; nothing was said on it yet.

    `challenge`: a secret is to be proven on it, or a token to be shown.
    """

    challenge: Shown | None = None


class Answer(msgspec.Struct, frozen=True):
    """The first message of the other side came."""

    greeting: wire.Hello | wire.Goodbye


class Ended(msgspec.Struct, frozen=True):
    """The attempt failed, or the connection has ended or is no longer of use.

    `code` is `NOT_TRUSTED` if TLS could not be agreed on. `shuns`: who answered is of no use at all.
    """

    reason: str
    code: str = ""
    shuns: bool = False


class Replaced(msgspec.Struct, frozen=True):
    """Another connection, on which hellos were exchanged, is to be used in place of the one that is up.

    That one is reset before: of two connections that are used at once the other side would end one. `address`
    is where it leads, if that is another of several.
    """

    answer: wire.Hello
    agreement: Agreement
    address: str = ""


class Tick(msgspec.Struct, frozen=True):
    """Time passed; due at `Redial.next_deadline()`."""


class Stop(msgspec.Struct, frozen=True):
    """Keep it open no longer."""


RedialInput: TypeAlias = Opened | Answer | Ended | Replaced | Tick | Stop

# --- effects ---------------------------------------------------------------------------------------------


class Open(msgspec.Struct, frozen=True):
    """Open a connection; bring `Opened`, or `Ended` if TCP takes longer than `connect_ns`."""

    connect_ns: int = NEVER_NS


class Greet(msgspec.Struct, frozen=True):
    """Send this, and bring what comes first as `Answer`."""

    hello: wire.Hello


class Prove(msgspec.Struct, frozen=True):
    """Send this before anything else."""

    proof: Proof


class Up(msgspec.Struct, frozen=True):
    """Hellos were exchanged: the connection can be used."""

    answer: wire.Hello
    agreement: Agreement


class Reset(msgspec.Struct, frozen=True):
    """Give the attempt up, or end the connection with a reset."""


class Down(msgspec.Struct, frozen=True):
    """The connection was up, and is down now."""


class Failed(msgspec.Struct, frozen=True):
    """There is no connection now, for this reason; `code` is that of a `Goodbye`, or `NOT_TRUSTED`."""

    reason: str
    code: str = ""


RedialEffect: TypeAlias = Open | Greet | Prove | Up | Reset | Down | Failed


class _Phase(IntEnum):
    PAUSING = 0
    OPENING = 1
    GREETING = 2
    UP = 3
    STOPPED = 4


class Redial:
    """One connection to `address`, over and over, from the first `Tick` on.

    With several, separated by commas, each attempt that fails goes on with the next, and what was up with the
    same unless that is shunned; pauses come after each has been tried.

    Times are nanoseconds of any one clock. Effects are to be performed in order, before the next input.
    """

    def __init__(self, address: str, hello: wire.Hello, dial_ns: int = DIAL_NS) -> None:
        self._addresses = tuple(address.split(","))
        self._turn = 0
        self._hello = hello
        self._asked = hello
        self._challenge: Shown | None = None
        self._dial_ns = dial_ns
        self._phase = _Phase.PAUSING
        self._due_ns = 0
        self._up_ns = 0
        self._pause_ns = BACKOFF_NS_MIN

    def step(self, now_ns: int, event: RedialInput) -> list[RedialEffect]:
        """Take one input; return the effects. Late inputs of a former connection are ignored."""
        match event, self._phase:
            case _, _Phase.STOPPED:
                return []
            case Stop(), phase:
                self._phase, self._due_ns = _Phase.STOPPED, NEVER_NS
                return [Reset()] if phase != _Phase.PAUSING else []
            case Tick(), phase if now_ns >= self._due_ns:
                return self._dial(now_ns) if phase == _Phase.PAUSING else self._too_slow(now_ns)
            case Opened(challenge=challenge), _Phase.OPENING:
                self._phase, self._challenge = _Phase.GREETING, challenge
                self._asked = self._hello if challenge is None else challenge.asking(self._hello)
                return [Greet(self._asked)]
            case Answer(greeting=greeting), _Phase.GREETING:
                return self._answered(now_ns, greeting)
            case Replaced(answer=answer, agreement=agreement, address=address), _Phase.UP:
                self._up_ns = now_ns
                if address:
                    self._turn = self._addresses.index(address)
                return [Reset(), Down(), Up(answer, agreement)]
            case Ended(reason=reason, code=code, shuns=shuns), phase if phase != _Phase.PAUSING:
                return self._ended(now_ns, Failed(reason, code), shuns=shuns)
        return []

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that may be connected to."""
        return self._addresses

    @property
    def address(self) -> str:
        """The address that is connected to, or tried next."""
        return self._addresses[self._turn]

    def next_deadline(self) -> int:
        """Return when a `Tick` is due: to dial, or to give an attempt up."""
        return self._due_ns

    def _dial(self, now_ns: int) -> list[RedialEffect]:
        self._phase, self._due_ns = _Phase.OPENING, now_ns + self._dial_ns
        return [Open(CONNECT_NS)] if len(self._addresses) > 1 else [Open()]

    def _too_slow(self, now_ns: int) -> list[RedialEffect]:
        seconds = self._dial_ns / 1e9
        return self._ended(now_ns, Failed(f"{self.address} did not answer within {seconds:g} s"))

    def _answered(self, now_ns: int, greeting: wire.Hello | wire.Goodbye) -> list[RedialEffect]:
        judged = judge(self._asked, greeting, self._challenge)
        if not isinstance(judged, Accepted):
            return self._ended(now_ns, Failed(f"{self.address} {judged.reason}", judged.code))
        self._phase, self._due_ns, self._up_ns = _Phase.UP, NEVER_NS, now_ns
        proving = [] if judged.proof is None else [Prove(judged.proof)]
        return [*proving, Up(judged.answer, judged.agreement)]

    def _ended(self, now_ns: int, failure: Failed, *, shuns: bool = False) -> list[RedialEffect]:
        was_up = self._phase == _Phase.UP
        # An attempt proves nothing, however long it took.
        if was_up and now_ns - self._up_ns > LASTING_NS:
            self._pause_ns = BACKOFF_NS_MIN
        self._phase, self._due_ns = _Phase.PAUSING, now_ns
        if not was_up or shuns:
            self._turn = (self._turn + 1) % len(self._addresses)
        if was_up or not self._turn:
            self._due_ns += self._pause_ns
            self._pause_ns = min(self._pause_ns * 2, BACKOFF_NS_MAX)
        return [Reset(), Down(), failure] if was_up else [Reset(), failure]
