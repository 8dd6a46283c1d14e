"""Benchmarks run as commands, in their small versions."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def measured(module: str, *options: str) -> dict[str, Any]:
    """Return the JSON object that a quick run of a benchmark prints."""
    command = [sys.executable, "-m", module, "--quick", "--json", *options]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def figures_in(told: dict[str, Any]) -> dict[str, Any]:
    """Return the figure of each target, None where nothing was measured."""
    return {each["target"]["ratio"]: each["figure"] for each in told["verdicts"]}
