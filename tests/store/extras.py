"""What the extras of greenroom require."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "store/pyproject.toml"


def requirements_of(extra: str) -> str:
    """Return the requirements of an extra, as a command names them: not as that of a project `greenroom`.

    None of that name is ours on the public index.
    """
    required = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"][extra]
    return " ".join(f"'{each}'" for each in required)
