"""An observer that remembers what it heard, for the tests of observing."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from greenroom.observing import Observer, Operation, Page


class Heard(Observer):
    """Remembers everything."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.pages: list[str] = []
        self.page_seconds: list[float] = []
        self.near: list[Callable[[], Any]] = []
        self.events: list[Callable[[], Mapping[str, int]]] = []

    def operation(self, operation: Operation) -> None:
        self.operations.append(operation)

    def page(self, page: Page) -> None:
        self.pages.append(page.outcome)
        self.page_seconds.append(page.seconds)

    def follow_near(self, near: Callable[[], Any]) -> None:
        self.near.append(near)

    def follow_events(self, events: Callable[[], Mapping[str, int]]) -> None:
        self.events.append(events)

    def counted(self) -> dict[tuple[str, str], int]:
        """Return how often each operation was heard, by kind and outcome."""
        return dict(Counter((each.kind, each.outcome) for each in self.operations))
