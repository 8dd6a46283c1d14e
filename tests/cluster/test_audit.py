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
from greenroom_cluster.audit import COMMANDS, Audit, author
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
    (line,) = audit.answered([wire.Written(8, 0), reply])
    assert line.fields() == {
        "who": "operator/ann",
        "remote": "10.0.0.9:5000",
        "command": "forget-node",
        "outcome": outcome,
        "name": "n1",
    }
    assert not audit.waits()
    assert audit.answered([reply]) == audit.close() == []


def test_what_was_never_answered_is_told_at_the_end() -> None:
    audit = Audit("unproven", "10.0.0.9:5000")
    audit.asked([wire.DropRecord(1, 2, 3, 4), wire.Subscribe(0, 0)])
    (line,) = audit.close()
    assert (line.command, line.outcome) == ("drop-record", "unanswered")
    assert line.about == {"shard": 2, "epoch": 3, "sequence": 4}


def test_a_copy_is_told_once_and_without_its_sessions() -> None:
    audit = Audit("operator/ann", "10.0.0.9:5000")
    audit.asked([CopyShard(1, 5, 0)])
    (line,) = audit.answered([ShardPart(1, 5, 0, False, 1, 1, ())])
    assert line.about == {"shard": 5}
    audit.asked([CopyShard(2, 5, 1)])
    assert not audit.waits()


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
