"""docs/protocol.md shows the tables of roles as they are: what each accepts, and what it becomes."""

import os
from pathlib import Path

from greenroom_cluster.shard.roles.accepts import ACCEPTS
from greenroom_cluster.shard.roles.role import BECOMES, InputKind, Role

PAGE = Path(__file__).parents[3] / "docs/protocol.md"
BEGIN, END = "<!-- roles -->\n", "<!-- end of roles -->\n"

TOLD = {
    InputKind.READ: "a client's read of one session",
    InputKind.WRITE: "a client's write to one session",
    InputKind.FANOUT: "a client's request to many shards",
    InputKind.RECORDS: "records, in a `Prepare`",
    InputKind.COMMIT: "a commit point, in a `Beacon`",
    InputKind.CHUNK: "a `SnapshotChunk`",
    InputKind.ACKNOWLEDGEMENT: "a `PrepareOk`",
    InputKind.LEASE: "a `BeaconOk`: its backup promises to wait",
    InputKind.REFUSAL: "a `BeaconOk`: its backup no longer backs it",
    InputKind.CHUNK_ACKNOWLEDGEMENT: "a `SnapshotOk`",
    InputKind.CHUNK_REFUSAL: "a `SnapshotRefused`",
    InputKind.GRACE_OVER: "the end of the grace",
    InputKind.CATCH_UP: "the rest of what an earlier step has left to apply",
}


def accepted() -> list[str]:
    """Draw the table of what each role accepts."""
    lines = ["| what reaches a replica | " + " | ".join(role.value for role in Role) + " |"]
    lines.append("|---|" + ":-:|" * len(Role))
    for kind in InputKind:
        cells = " | ".join("●" if kind in ACCEPTS[role] else " " for role in Role)
        lines.append(f"| {TOLD[kind]} | {cells} |")
    return lines


def become() -> list[str]:
    """Draw the state diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    names = {role: role.name.lower() for role in Role}
    lines += [f'    state "{role.value}" as {name}' for role, name in names.items() if role.value != name]
    for role, targets in BECOMES.items():
        before = "[*]" if role is Role.NONE else names[role]
        lines += [
            f"    {before} --> {names[target]}: {cause}"
            for target, cause in targets.items()
            if target is not role
        ]
    return [*lines, "```"]


def test_the_page_shows_the_tables_of_the_code() -> None:
    """`GREENROOM_UPDATE_PAGES=1` draws them anew."""
    drawn = "\n".join([*accepted(), "", *become()]) + "\n"
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    shown, _, after = rest.partition(END)
    if os.environ.get("GREENROOM_UPDATE_PAGES"):
        PAGE.write_text(before + BEGIN + drawn + END + after)
        return
    assert shown == drawn


def test_both_tables_name_every_role() -> None:
    assert set(ACCEPTS) == set(BECOMES) == set(Role)


def test_every_role_can_be_reached() -> None:
    reached = {Role.NONE}
    while more := {target for role in reached for target in BECOMES[role]} - reached:
        reached |= more
    assert reached == set(Role)
