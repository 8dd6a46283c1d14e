"""What the files of deploy/ tell Greenroom's commands, taken as the command line takes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main

from greenroom_cluster.cli.commands import app
from greenroom_cluster.cli.settings import _settings
from greenroom_cluster.config import CoordinatorProcessSettings, NodeSettings

DEPLOY = Path(__file__).parents[2] / "deploy"

_KINDS: Mapping[str, type[msgspec.Struct]] = {"node": NodeSettings, "coordinator": CoordinatorProcessSettings}


def variables_of(command: str) -> set[str]:
    """Return the variables of a command of `greenroom`, which may be of two words."""
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    variables: set[str] = set()
    for parameter in found.params:
        named = parameter.envvar or ()
        variables |= {named} if isinstance(named, str) else set(named)
    return variables


def taken(
    arguments: Sequence[str], variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> NodeSettings | CoordinatorProcessSettings:
    """Return the settings of a node or coordinator that is started so; what it would refuse is raised."""
    command, *rest = arguments
    group: Any = typer.main.get_command(app)
    with monkeypatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        context = group.commands[command].make_context(command, list(rest))
    settings: Any = _settings(_KINDS[command], context.params)
    settings.check()
    assert isinstance(settings, NodeSettings | CoordinatorProcessSettings)
    return settings
