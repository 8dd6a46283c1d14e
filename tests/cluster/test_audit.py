"""Every command of an operator leaves a line, whatever becomes of it."""

import os
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.identities import Identity
from greenroom_cluster.access import AT_ACTOR, AT_COORDINATOR
from greenroom_cluster.audit import COMMANDS, SUM_SECONDS, Audit, author, ranges
from greenroom_cluster.config import CoordinatorProcessSettings
from greenroom_cluster.coordination.messages import Accepted, ForgetNode, Rejected
from greenroom_cluster.runtime.coordination_process import _prepare
from greenroom_cluster.shard.clients.operations import CopyShard, ShardPart


def commands(kinds: object) -> set[object]:
    return set(get_args(kinds)) - {wire.Subscribe}


def test_every_command_that_is_served_is_told() -> None:
    served = commands(AT_COORDINATOR[wire.ROLE_OPERATOR]) | commands(AT_ACTOR[wire.ROLE_OPERATOR])
    assert served
    assert served <= set(COMMANDS)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Accepted(7), "done"),
        (Rejected(7, "stop it first"), "stop it first"),
        (wire.Failed(7, wire.FailureCode.NOT_FOUND, "no such shard"), "no such shard"),
        (wire.Failed(7, wire.FailureCode.NOT_FOUND), "refused"),
        (wire.Overloaded(7, "later"), "later"),
        (wire.Redirect(7, 3), "redirect"),
        (wire.Written(7, 0), "done"),
    ],
)
def test_the_answer_is_the_outcome(reply: wire.Frame, outcome: str) -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    audit.asked([ForgetNode(7, "n1")])
    assert audit.waits()
    (line,) = audit.answered([wire.Written(8, 0), reply], 0.0)
    assert line.fields() == {
        "who": "operator/ann",
        "remote": "10.0.0.9:5000",
        "command": "forget-node",
        "outcome": outcome,
        "name": "n1",
    }
    assert not audit.waits()
    assert audit.answered([reply], 0.0) == audit.close() == []


def test_what_was_never_answered_is_told_at_the_end() -> None:
    audit = Audit("unproven", "10.0.0.9:5000")
    audit.asked([wire.DropRecord(1, 2, 3, 4), wire.Subscribe(0, 0)])
    (line,) = audit.close()
    assert (line.command, line.outcome) == ("drop-record", "unanswered")
    assert line.about == {"shard": 2, "epoch": 3, "sequence": 4}


def test_a_copy_is_told_once_and_without_its_sessions() -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    audit.asked([CopyShard(1, 5, 0)])
    (line,) = audit.answered([part(1, 5)], 0.0)
    assert line.about == {"shard": 5}
    audit.asked([CopyShard(2, 5, 1)])
    assert not audit.waits()
    assert audit.close() == []


def part(request_id: int, shard: int) -> ShardPart:
    return ShardPart(request_id, shard, 0, True, 1, 1, ())


def test_copies_of_many_shards_are_told_in_two_lines() -> None:
    """The first at once: whoever copies sessions is not in the log only when the copy is complete."""
    audit = Audit("operator/ann", "10.0.0.9:5000")
    told = []
    for shard in (5, 7, 6, 9):
        audit.asked([CopyShard(1, shard, 0)])
        told.append(audit.answered([part(1, shard)], float(shard)))
    assert [[line.about for line in lines] for lines in told] == [[{"shard": 5}], [], [], []]
    (line,) = audit.close()
    assert (line.who, line.command, line.outcome) == ("operator/ann", "copy-shard", "done")
    assert line.about == {"count": 3, "shards": "6-7,9"}
    assert audit.close() == []


def test_each_outcome_of_copies_is_told_at_once() -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    audit.asked([CopyShard(1, 1, 0), CopyShard(2, 2, 0), CopyShard(3, 3, 0), CopyShard(4, 4, 0)])
    refused = wire.Failed(2, wire.FailureCode.NOT_FOUND, "no such shard")
    told = audit.answered([part(1, 1), refused, part(3, 3)], 0.0)
    assert [(line.outcome, line.about) for line in told] == [
        ("done", {"shard": 1}),
        ("no such shard", {"shard": 2}),
    ]
    left = [(line.outcome, line.about) for line in audit.close()]
    assert left == [("unanswered", {"shard": 4}), ("done", {"count": 1, "shards": "3"})]


def test_copies_that_go_on_are_told_again_after_a_while() -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    told = []
    for second in range(int(3 * SUM_SECONDS)):
        audit.asked([CopyShard(1, second, 0)])
        told += audit.answered([part(1, second)], float(second))
    told += audit.close()
    assert sum(line.about.get("count", 1) for line in told) == 3 * SUM_SECONDS
    assert len(told) == 6


def test_other_commands_are_never_told_together() -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    audit.asked([ForgetNode(7, "n1"), ForgetNode(8, "n2")])
    told = audit.answered([Accepted(7), Accepted(8)], 0.0)
    assert [line.about for line in told] == [{"name": "n1"}, {"name": "n2"}]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([4], "4"), ([2, 1, 0], "0-2"), ([9, 1, 3, 4, 1], "1,3-4,9")],
)
def test_numbers_are_told_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize(
    ("identity", "on_loopback", "who"),
    [
        (Identity("shop", "operator", "ann"), False, "operator/ann"),
        (Identity("shop", "operator", "ann"), True, "operator/ann"),
        (None, True, "loopback user"),
        (None, False, "unproven"),
    ],
)
def test_nobody_is_believed_without_proof(identity: Identity | None, on_loopback: bool, who: str) -> None:
    assert author(identity, on_loopback=on_loopback) == who


def test_a_new_lineage_is_told_too(tmp_path: Path) -> None:
    """By the user of the host who started the coordinator like that: nobody else can."""
    first = CoordinatorProcessSettings(data_dir=tmp_path)
    _prepare(first, "127.0.0.1", 0, [])
    with capture_logs() as logs:
        _prepare(replace(first, new_lineage=True, give_up_newer=True), "127.0.0.1", 0, [])
    (log,) = [log for log in logs if log["event"] == "operator_command"]
    assert (log["who"], log["command"], log["outcome"]) == (f"uid {os.getuid()}", "new-lineage", "done")
