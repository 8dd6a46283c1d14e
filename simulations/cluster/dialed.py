"""Connections that simulated processes keep open, as the real `Redial` and `Seeking` decide."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from greenroom import negotiation, wire
from greenroom.deadlines import NEVER_NS
from greenroom.framing import encode_greeting
from greenroom_cluster.links import redial, seeking
from simulations.cluster.connections import Codec, challenge_of, greeting_of, unpack
from simulations.kernel.network import Attempt, End
from simulations.kernel.processes import Process

_answer_decoder = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)


class Dialed:
    """A connection that is kept open until `stop`, as `Redial` decides.

    `on_up()` once hellos were exchanged, `on_messages(messages)` returns whether to go on, `on_down()`, and
    `on_failed()` whenever there is no connection.
    """

    def __init__(
        self,
        process: Process,
        codec: Codec,
        address: str,
        greeting: wire.Hello,
        decoder: "msgspec.msgpack.Decoder[Any]",
        tag: str,
    ) -> None:
        self.agreement = negotiation.Agreement(wire.PROTOCOL_VERSION)
        self.on_up: Callable[[], object] = _nothing
        self.on_messages: Callable[[list[Any]], bool] = _keep
        self.on_down: Callable[[], object] = _nothing
        self.on_failed: Callable[[], object] = _nothing
        self.end: End | None = None
        self._process = process
        self._codec = codec
        self._greeting = greeting
        self._redial = redial.Redial(address, greeting)
        self._decoder = decoder
        self._tag = tag
        self._spare: Dialed | None = None
        self._stopped = False
        self._shuns = False
        self._answer = redial.Replaced(greeting, negotiation.Agreement(wire.PROTOCOL_VERSION))
        self._attempt: Attempt | None = None
        self._opening: End | None = None
        self._armed = NEVER_NS
        self._seeking = seeking.Seeking(self._redial.addresses)
        self._aside: dict[str, Dialed] = {}

    @property
    def address(self) -> str:
        """The address that is connected to, or tried next."""
        return self._redial.address

    def start(self) -> None:
        """Begin to connect."""
        self._process.links.append(self)
        self._step(redial.Tick())

    def stop(self) -> None:
        """End it; nothing is reported any more."""
        if self in self._process.links:
            self._process.links.remove(self)
        for each in (self._spare, *self._aside.values()):
            if each is not None:
                each.stop()
        self._stopped = True
        self._step(redial.Stop())

    def renew(self) -> bool:
        """Have another connection take the place of this one; return whether there is one to replace."""
        if self.end is None or self._spare is not None:
            return False
        spare = Dialed(self._process, self._codec, self.address, self._greeting, self._decoder, self._tag)
        spare.on_up = self._take_over
        spare.on_failed = self._give_up
        self._spare = spare
        spare._step(redial.Tick())
        return True

    def _give_up(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.stop()

    def _take_over(self) -> None:
        assert self._spare is not None
        if self.end is None:
            self._give_up()
            return
        spare = self._spare
        answer = spare._answer  # noqa: SLF001
        self._step(answer)
        self._process.network.happened["link replaced"] += 1

    @property
    def queued(self) -> bool:
        """Whether a message sent now would wait in this process."""
        return self.end is not None and self._process.network.queue_ns(self.end) > 0

    def send(self, messages: Sequence[wire.Frame], *, urgent: bool = False) -> None:
        """Send; lost while there is no connection."""
        if self.end is not None:
            self._process.network.send(self.end, self._codec.pack(messages), urgent=urgent)

    def _step(self, event: redial.RedialInput) -> None:
        for effect in self._redial.step(self._process.machine.now_ns(), event):
            match effect:
                case redial.Open(connect_ns=connect_ns):
                    self._open(connect_ns)
                case redial.Greet(hello=greeting):
                    assert self._opening is not None
                    self._process.network.send(self._opening, encode_greeting(greeting))
                case redial.Prove(proof=proof):
                    assert self._opening is not None
                    self._process.network.send(self._opening, encode_greeting(proof))
                case redial.Up() if self._stopped:
                    pass  # whoever heard that it was down wants it no more
                case redial.Up(answer=answer, agreement=agreement):
                    self.agreement, self._answer = agreement, redial.Replaced(answer, agreement)
                    if self._spare is not None and isinstance(event, redial.Replaced):
                        self._opening, self._spare = self._spare.hand_over(), None
                    self._seek(seeking.Held(self.address, answer.sender))
                    self._up()
                case redial.Reset():
                    self._reset()
                case redial.Down():
                    self._seek(seeking.Released())
                    self.on_down()
                case redial.Failed():
                    self.on_failed()
        self._arm()

    def _open(self, connect_ns: int) -> None:
        attempt = self._process.network.connect(
            self._process, self.address, self._connected, self._ended, self._tag
        )
        self._attempt = attempt
        if connect_ns != NEVER_NS:
            self._process.later(connect_ns / 1e9, self._unaccepted, attempt)

    def _unaccepted(self, attempt: Attempt) -> None:
        if self._attempt is attempt:
            self._ended("nobody has accepted in time")

    def shun(self) -> None:
        """Note that who answers there is of no use; the connection ends once its messages are handled."""
        self._shuns = True
        self._seek(seeking.Shunned(self.address))

    # --- other addresses ---------------------------------------------------------------------------------

    def _seek(self, event: seeking.SeekingInput) -> list[seeking.SeekingEffect]:
        before = self._seeking.next_deadline()
        effects = self._seeking.step(self._process.machine.now_ns(), event)
        due_ns = self._seeking.next_deadline()
        if due_ns not in (before, NEVER_NS):
            self._process.later((due_ns - self._process.machine.now_ns()) / 1e9, self._look, due_ns)
        return effects

    def _look(self, due_ns: int) -> None:
        if due_ns != self._seeking.next_deadline() or self._stopped:
            return
        left_ns = due_ns - self._process.machine.now_ns()
        if left_ns > 0:  # by a clock that was slowed meanwhile
            self._process.later(left_ns / 1e9, self._look, due_ns)
            return
        for effect in self._seek(seeking.Tick()):
            if isinstance(effect, seeking.Dial):
                self._dial_aside(effect.address)

    def _dial_aside(self, address: str) -> None:
        aside = Dialed(self._process, self._codec, address, self._greeting, self._decoder, self._tag)
        aside.on_up = lambda: self._found(address)
        aside.on_failed = lambda: self._not_found(address)
        self._aside[address] = aside
        aside._step(redial.Tick())

    def _not_found(self, address: str) -> None:
        if (aside := self._aside.pop(address, None)) is not None:
            aside.stop()
            self._seek(seeking.Unanswered(address))

    def _found(self, address: str) -> None:
        aside = self._aside.pop(address)
        answer = aside._answer  # noqa: SLF001
        taken = seeking.Take() in self._seek(seeking.Answered(address, answer.answer.sender))
        if not taken or self.end is None or self._spare is not None:
            aside.stop()
            return
        self._spare = aside
        self._step(msgspec.structs.replace(answer, address=address))
        self._process.network.happened["link moved"] += 1

    # --- time --------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due_ns = self._redial.next_deadline()
        if due_ns != self._armed:
            self._armed = due_ns
            if due_ns != NEVER_NS:
                process, timeline = self._process, self._process.timeline
                at = max(process.machine.moment(due_ns), timeline.now + 1)
                timeline.at(at, process.tell, 0, self._due, due_ns)

    def _due(self, due_ns: int) -> None:
        if due_ns == self._armed:
            # By a clock that was slowed meanwhile, it may not be due yet.
            self._armed = NEVER_NS
            self._step(redial.Tick())

    def abort(self, reason: str) -> None:
        """End the connection that stands; another is opened."""
        self._ended(reason)

    def _connected(self, end: End) -> None:
        self._attempt = None
        self._opening = end
        end.on_data = self._answered
        end.on_closed = self._ended
        self._step(redial.Opened(challenge_of(self._process, self.address)))

    def _answered(self, payload: Any) -> None:
        self._step(redial.Answer(greeting_of(payload, _answer_decoder)))

    def _ended(self, reason: str) -> None:
        self._step(redial.Ended(reason))

    def hand_over(self) -> End | None:
        """Return the connection that stands, for another to use."""
        end, self.end = self.end, None
        if end is not None:
            end.on_closed = _nothing
        return end

    def _up(self) -> None:
        self.end, self._opening = self._opening, None
        assert self.end is not None
        self.end.on_data = self._received
        self.end.on_closed = self._ended
        self.on_up()

    def _received(self, payload: Any) -> None:
        if not self.on_messages(unpack(payload, self._decoder)):
            shuns, self._shuns = self._shuns, False
            self._step(redial.Ended("it is not followed any more", shuns=shuns))

    def _reset(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
        for end in (self._opening, self.end):
            if end is not None:
                self._process.network.close(end, reset=True)
        self._attempt = self._opening = self.end = None


def _nothing(*_: Any) -> None:
    pass


def _keep(_: list[Any]) -> bool:
    return True
