"""One log line for the transitions of a second."""

from greenroom_cluster.runtime.role_report import RoleReport
from greenroom_cluster.shard.effects import Transition


def report_of(*transitions: tuple[int, str, str]) -> RoleReport:
    report = RoleReport()
    for shard, role, reason in transitions:
        report.note(Transition(shard, 1, role, reason))
    return report


def test_no_line_where_nothing_changed() -> None:
    report = report_of((1, "primary", "started"))
    assert report.take() is not None
    assert report.take() is None


def test_roles_are_those_of_now_and_reasons_those_since_the_last_line() -> None:
    report = report_of((1, "primary", "started"), (2, "joining", "copying"), (2, "backup", "caught up"))
    assert report.take() == {
        "roles": {"backup": 1, "primary": 1},
        "reasons": {"started": 1, "copying": 1, "caught up": 1},
    }
    report.note(Transition(1, 2, "none", "removed"))
    assert report.take() == {"roles": {"backup": 1}, "reasons": {"removed": 1}}


def test_a_line_stays_short_however_many_reasons_there_are() -> None:
    report = report_of(*((shard, "primary", f"reason {shard}") for shard in range(50)))
    for shard in (0, 1):
        report.note(Transition(shard, 1, "primary", "often"))
    fields = report.take()
    assert fields is not None
    assert len(fields["reasons"]) == 8
    assert next(iter(fields["reasons"])) == "often"
