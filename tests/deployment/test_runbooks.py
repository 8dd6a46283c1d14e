"""Each alert names a page that says what to do, and each such page belongs to an alert."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from greenroom_cluster.cli.commands import app
from tests.deployment.settings import DEPLOY

ROOT = DEPLOY.parent
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "index.md")
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # it is a group


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_names_its_page(alert: str) -> None:
    page = ROOT / RULES[alert]["annotations"]["runbook"]
    assert page.parent == RUNBOOKS
    assert page.read_text().splitlines()[2] == f"Alert `{alert}`."
    assert f"| `{alert}` |" in (RUNBOOKS / "index.md").read_text()


def test_no_page_is_left_without_its_alert() -> None:
    named = {ROOT / rule["annotations"]["runbook"] for rule in RULES.values()}
    assert named == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_has_all_of_its_parts(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"^(?:\*\*(What it means)\.\*\*|## (.+)$)", text, re.MULTILINE)
    assert [means or heading for means, heading in found] == [
        "What it means",
        "Look",
        "Do",
        "It is over when",
    ]
    for command in re.findall(r"(?:^|`)greenroom ([a-z][a-z-]+)", text, re.MULTILINE):
        assert command in COMMANDS, command
