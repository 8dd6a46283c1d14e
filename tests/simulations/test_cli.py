"""Whoever errs in a command is told in one line what to do, and nothing was run."""

from pathlib import Path

import pytest

from simulations.cli.main import main

FILES = {
    "broken.json": "{",
    "no_fault.json": '{"seed": 1, "faults": [{"at_ms": 1, "kind": "earthquake"}]}',
    "no_field.json": '{"seed": 1, "nodez": 2}',
    "no_times.json": '{"seed": 1, "lease_seconds": 9}',
    "no_shards.json": '{"seed": 1, "shards": 3}',
    "no_namespace.json": '{"seed": 1, "secret": true, "tenants": true}',
    "no_quota.json": '{"seed": 1, "quota_sessions": 3, "quota_bytes": 3}',
    "no_coordinators.json": '{"seed": 1, "coordinators": 99}',
    "no_tls.json": '{"seed": 1, "secret": true, "tokens": true}',
    "broken.toml": "title = ",
    "no_bound.toml": 'title = "x"',
    "no_target.toml": 'title = "x"\nbound_seconds = 1\n[[fault]]\nat = 1\nkind = "pause"\ntarget = "moon"\n',
}

MISTAKES = [
    (["run", "--seeds", "a:b"], "FROM:TO"),
    (["run", "--seeds", "5:5"], "holds no seed"),
    (["run", "--jobs", "0"], "at least 1"),
    (["run", "--stop-after", "x"], "at least 0"),
    (["replay", "nowhere.json"], "neither a seed nor a file"),
    (["replay", "broken.json"], "is not a plan"),
    (["replay", "no_fault.json"], "there is no fault 'earthquake'"),
    (["replay", "no_field.json"], "unknown field `nodez`"),
    (["replay", "no_times.json"], "raise grace_seconds or lower lease_seconds"),
    (["replay", "no_shards.json"], "power of two"),
    (["replay", "no_namespace.json"], "secret and tenants exclude each other"),
    (["replay", "no_quota.json"], "a quota needs quota_sessions, quota_bytes and tenants"),
    (["replay", "no_coordinators.json"], "coordinators must be 0, for one with a file, to 9"),
    (["replay", "no_tls.json"], "secret and tokens exclude each other"),
    (["replay", "1", "--save", "broken.json/plan"], "another file with --save"),
    (["replay", "1", "--history", "broken.json/history"], "another file with --history"),
    (["scenario", "nowhere"], "there are: coordinator_away"),
    (["scenario", "broken.toml"], "is not a scenario"),
    (["scenario", "no_bound.toml"], "`bound_seconds`"),
    (["scenario", "no_target.toml"], "'moon' names nothing"),
    (["scenario", "killed_actor", "--svg", "broken.json"], "another directory with --svg"),
    (["mutants", "nothing like it"], "no mutant has"),
    (["mutants", "--jobs", "-1"], "at least 1"),
    (["scale", "--nodes-max", "3"], "at least 10"),
    (["scale", "--svg", "broken.json/scale.svg"], "another file with --svg"),
    (["fly"], "invalid choice: 'fly'"),
    ([], "required: command"),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_told_in_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert told in output.err
    assert output.err.count("\n") == 1


def test_a_plan_and_a_history_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, history = tmp_path / "new" / "plan.json", tmp_path / "history.jsonl"
    assert main(["replay", "3", "--save", str(plan), "--history", str(history)]) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert main(["replay", str(plan)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first
    assert '"kind"' in history.read_text()
