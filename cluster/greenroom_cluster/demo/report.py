"""What the demo shows at its end: a table for people, one JSON object for programs."""

import msgspec
from rich.console import Console
from rich.table import Table

from greenroom_cluster.demo.verdict import ERROR, EXIT_LOST, EXIT_OK, DemoResult


def result_json(result: DemoResult) -> str:
    """Return the figures as one JSON object on one line. Times are seconds."""
    return msgspec.json.encode(result).decode()


def print_result(console: Console, result: DemoResult) -> None:
    """Print the table, the first problems, and the verdict in a sentence."""
    table = Table(title="What the shop's customers saw", show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value, bad in _rows(result):
        table.add_row(name, value, style="bold red" if bad else None)
    console.print(table)
    for problem in result.problems:
        console.print(f"  {problem}", style="red", markup=False, highlight=False)
    unlisted = result.user_errors - sum(problem.startswith(ERROR) for problem in result.problems)
    if unlisted > 0:
        console.print(f"  and {unlisted:,} more errors", style="red", highlight=False)
    if result.exit_code == EXIT_OK:
        console.print(_kept(result), style="green", soft_wrap=True)
    elif result.exit_code == EXIT_LOST:
        console.print("Something that was confirmed was lost, changed or came back.", style="bold red")
    else:
        console.print("The run measured too little to tell: no recovery or no cart was seen.", style="yellow")


def _kept(result: DemoResult) -> str:
    if result.recover_all_seconds is None:
        return "Nothing that was confirmed was lost."
    return (
        "Nothing that was confirmed was lost, though every process was killed at once: all shards served "
        f"again after {_duration(result.recover_all_seconds)}, from their directories."
    )


def _rows(result: DemoResult) -> list[tuple[str, str, bool]]:
    return [
        ("requests", f"{result.requests:,}", result.requests == 0),
        ("errors seen by users", f"{result.user_errors:,}", result.user_errors > 0),
        ("confirmed writes", f"{result.confirmed_writes:,}", result.confirmed_writes == 0),
        ("confirmed writes lost", f"{result.lost_writes:,}", result.lost_writes > 0),
        ("carts checked item by item", f"{result.carts_checked:,}", result.carts_checked == 0),
        ("carts wrong", f"{result.wrong_carts:,}", result.wrong_carts > 0),
        ("stale reads", f"{result.stale_reads:,}", result.stale_reads > 0),
        ("ended logins tried again", f"{result.logouts_checked:,}", False),
        ("logins that came back after logout", f"{result.resurrected:,}", result.resurrected > 0),
        _duration_row("time to recover after the actor's kill", result.recover_actor_seconds),
        _duration_row("time to recover after the node's kill", result.recover_node_seconds),
        *_rows_of_coordinators(result),
        *_rows_of_durability(result),
        _duration_row("request latency, median", result.latency_p50_seconds),
        _duration_row("request latency, 99 of 100 within", result.latency_p99_seconds),
        _duration_row("longest request", result.longest_request_seconds),
    ]


def _rows_of_coordinators(result: DemoResult) -> list[tuple[str, str, bool]]:
    if not result.store:
        return []
    return [_duration_row("time until another coordinator led", result.new_leader_seconds)]


def _rows_of_durability(result: DemoResult) -> list[tuple[str, str, bool]]:
    if result.durability == "none":
        return []
    return [_duration_row("time to recover after everything's kill", result.recover_all_seconds)]


def _duration_row(name: str, seconds: float | None) -> tuple[str, str, bool]:
    if seconds is None:
        return name, "not seen", True
    return name, _duration(seconds), False


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
