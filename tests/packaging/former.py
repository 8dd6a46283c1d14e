"""The last release that speaks version 3 of the protocol, built from the history."""

import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import INSTALL_SECONDS, ROOT, Wheels, run, uv

FORMER = "43bf513e21d52e9b619cb6e96ba6beec3d6449a9"
"""The last commit of version 3."""


def build_former(folder: Path) -> Wheels:
    """Build its wheels; skips the test in a clone without that history."""
    archive = folder / "former.tar"
    made = subprocess.run(
        ["git", "archive", "--output", archive, FORMER], cwd=ROOT, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no history with commit {FORMER[:7]}: {made.stderr.strip()}")
    source = folder / "source"
    source.mkdir()
    run("tar", "-xf", archive, "-C", source)
    built = subprocess.run(
        [uv(), "build", "--all-packages", "--wheel", "--out-dir", folder],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if built.returncode:
        pytest.skip(f"commit {FORMER[:7]} does not build here: {built.stderr.strip()[-500:]}")
    [facade] = folder.glob("greenroom-*.whl")
    [cluster] = folder.glob("greenroom_cluster-*.whl")
    return Wheels(facade, cluster)
