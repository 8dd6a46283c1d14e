"""Client processes as the benchmark sees them: one contender each, told what to do."""

from typing import TypeVar

import msgspec

from benchmarks.contenders.catalogue import Contender
from benchmarks.orders import Answer, Broken, Done, Measure, Measured, Order, Setup, WarmUp
from benchmarks.processes import MissingError, Process, Server, python_module
from benchmarks.samples import Sample

_ORDER_SECONDS = 1800.0
_answers: "msgspec.json.Decoder[Answer]" = msgspec.json.Decoder(Answer)
_Kind = TypeVar("_Kind", bound=Answer)


class ContenderError(Exception):
    """A contender could not do what it was told; the message is its own."""


class ClientProcess:
    """One process of one contender. Raises MissingError if its packages are not installed."""

    def __init__(self, contender: Contender, server: Server | None, *, quiet: bool = True) -> None:
        self._server = server
        self._process = Process(python_module("benchmarks.worker"), obeys=True, quiet=quiet)
        addresses = server.addresses if server is not None else {}
        setup = Setup(client=contender.client, loop=contender.loop, addresses=addresses)
        try:
            self._process.ask(msgspec.json.encode(setup).decode())
            self.versions = self._greeting()
        except BaseException:
            self.close()
            raise

    def _greeting(self) -> dict[str, str]:
        """Return the versions of the packages that the process uses."""
        answer = _answers.decode(self._process.answer())
        if isinstance(answer, Broken) and answer.missing:
            raise MissingError(
                f"{answer.missing} is not installed: uv run --group bench python -m benchmarks"
            )
        if not isinstance(answer, Done):
            raise ContenderError(f"it did not start: {answer}")
        return answer.versions

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._process.stop()

    def begin(self, order: Order) -> None:
        """Give an order; `finish` has its answer."""
        self._process.ask(msgspec.json.encode(order).decode())

    def finish(self, kind: type[_Kind]) -> _Kind:
        """Return the answer to the order given last. Raises ContenderError if it was not done."""
        answer = _answers.decode(self._process.answer(_ORDER_SECONDS))
        if isinstance(answer, Broken):
            raise ContenderError(answer.reason)
        if not isinstance(answer, kind):
            raise TypeError(f"{kind.__name__} was expected, not {type(answer).__name__}")
        return answer

    def answered(self, seconds: float) -> bool:
        """Whether the order given last is done; waits for that at most `seconds`."""
        return self._process.has_answer(seconds)

    def do(self, order: Order) -> float:
        """Have an order done that only takes time; return how many seconds."""
        self.begin(order)
        return self.finish(Done).seconds

    def warm_up(self, order: Measure) -> None:
        """Have every caller of a measurement work once before it; what is `tolerant` begins as it is."""
        if not order.tolerant:
            self.do(WarmUp(work=order.work, callers=order.callers))

    def measure(self, order: Measure) -> Sample:
        """Have a measurement made, with the servers' CPU time added."""
        self.warm_up(order)
        before = self._server.cpu_seconds() if self._server is not None else 0.0
        self.begin(order)
        sample = self.finish(Measured).sample
        after = self._server.cpu_seconds() if self._server is not None else 0.0
        return msgspec.structs.replace(sample, server_cpu=(after - before) / max(1, sample.operations))
