"""The table of docs/benchmarks/hosts.md from a file of figures: `python -m tests.hosts.figures FILE`."""

import sys
from pathlib import Path
from statistics import median

import msgspec

from tests.hosts.story import Figure


def table(figures: list[Figure]) -> str:
    """Return one row for each event, in the order in which they happened first."""
    rows = [
        "| what happens | bound | longest wait: median | highest | machine stalled | whole again | rounds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(each.name for each in figures):
        own = [each for each in figures if each.name == name]
        waits = [each.longest_seconds for each in own]
        stalled, whole = (max(each.stall_seconds for each in own), median(each.whole_seconds for each in own))
        bound = own[0].promised_seconds
        shown = f"{max(waits):.2f} s"
        shown = f"**{shown}**" if max(waits) > bound else shown
        middle = f"{median(waits):.2f} s"
        rows.append(
            f"| {name} | {bound:g} s | {middle} | {shown} | {stalled:.2f} s | {whole:.1f} s | {len(own)} |"
        )
    return "\n".join(rows)


def main() -> None:
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    sys.stdout.write(table([msgspec.json.decode(line, type=Figure) for line in lines]) + "\n")


if __name__ == "__main__":
    main()
