"""How long callers waited in an event, and the table that tells it."""

from simulations.checks.linearizability import Operation
from tests.hosts.figures import table
from tests.hosts.story import LOST, NOTHING, Event, Figure


def operation(invoked_ns: int, completed_ns: int) -> Operation:
    return Operation(
        client="c", session="s", kind="get", key="s/0", invoked_ns=invoked_ns, completed_ns=completed_ns
    )


def test_an_operation_counts_in_each_event_that_it_has_seen() -> None:
    history = [operation(0, 10), operation(5, 105), operation(120, 130), operation(190, 500)]
    event = Event(name="cut", bound=NOTHING, began_ns=100, ended_ns=200)
    assert event.longest_seconds(history) == 310e-9
    assert event.longest_seconds(history[:3]) == 100e-9
    assert event.longest_seconds(history[:1]) == 0


def test_what_is_above_its_bound_stands_out() -> None:
    def figure(name: str, longest_seconds: float) -> Figure:
        return Figure(
            name=name,
            promised_seconds=LOST.promised_seconds,
            longest_seconds=longest_seconds,
            stall_seconds=0.25,
            whole_seconds=4.0,
            operations=100,
        )

    shown = table([figure("cut", 1.0), figure("lost", 2.5), figure("cut", 1.5)]).splitlines()
    assert shown[2:] == [
        "| cut | 2 s | 1.25 s | 1.50 s | 0.25 s | 4.0 s | 2 |",
        "| lost | 2 s | 2.50 s | **2.50 s** | 0.25 s | 4.0 s | 1 |",
    ]
