"""No page, message or script installs ours by a name that the public index is asked for."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = re.compile(r"&&|[;|]")
INSTALLS = re.compile(r"\b(?:pipx?|uvx?)\b.*?(?:\b(?:install|add|download)\b|--from\b|--with\b)([^`]*)")
OURS = re.compile(r"(?<![\w./-])(?>greenroom(?:-cluster)?)(?![\w./-])(?>(?:\[[a-z,]+\])?)(?! @ )")


def wrong_lines(text: str) -> list[str]:
    """Return the lines that install greenroom by its name alone, or have a tool look beside the index."""
    return [
        line.strip()
        for line in text.replace("\\\n", " ").splitlines()
        if "find-links" in line.replace("`--find-links`", "")
        or any(OURS.search(named) for each in COMMANDS.split(line) for named in INSTALLS.findall(each))
    ]


def texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = [ROOT / each for each in listed.decode().split("\0") if each]
    kinds = {".md", ".py", ".toml", ".sh", ".yml", ".yaml", ".service", ".cfg", ""}
    return [each for each in found if each.suffix in kinds and each.is_file() and each != Path(__file__)]


def test_ours_are_installed_by_path_or_hash() -> None:
    found = texts()
    assert {ROOT / ".ci/run", ROOT / "README.md", ROOT / "cluster/README.md", ROOT / "Justfile"} <= {*found}
    wrong = {str(each.relative_to(ROOT)): lines for each in found if (lines := wrong_lines(each.read_text()))}
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        'pip install --find-links dist "greenroom[quart]"',
        'find-links = ["dist"]',
        "pip install greenroom",
        "pip install 'greenroom[web]'",
        'uv tool install "greenroom-cluster[tractor]" \\\n    --overrides overrides.txt',
        "uv add greenroom",
        "uvx --from greenroom-cluster greenroom up",
        "python3 -m pip install -U greenroom==0.1.0",
        "pip download greenroom-cluster",
    ],
)
def test_a_bare_name_is_found(line: str) -> None:
    assert wrong_lines(f"Before.\n\n{line}\n") != []


@pytest.mark.parametrize(
    "line",
    [
        "pip install dist/greenroom-0.1.0-py3-none-any.whl dist/greenroom_cluster-0.1.0-py3-none-any.whl",
        'pip install "dist/greenroom-0.1.0-py3-none-any.whl[quart]"',
        'uv tool install "greenroom-cluster[tractor] @ file:///dist/greenroom_cluster-0.1.0-py3-none-any.whl"',
        "pip install uv && uv run greenroom demo",
        "pip install --no-deps tractor==0.1.0a5",
    ],
)
def test_a_path_is_none(line: str) -> None:
    assert wrong_lines(line) == []
