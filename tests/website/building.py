"""The site, built by its command on a machine without a network, where such a one can be made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from website.__main__ import PAGES, SITE

ROOT = Path(__file__).parent.parent.parent
BUILD_SECONDS = 120
NOBODY = "http://127.0.0.1:9"


def alone() -> list[str]:
    """Return what runs a command without any network: in a namespace of its own, if that can be made."""
    command = ["unshare", "--net"]
    if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        return command
    # Whoever would download asks a proxy that is not there.
    return [
        "env",
        *(f"{name}={NOBODY}" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")),
    ]


def build(folder: Path, *options: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command; what it made is in `folder`."""
    command = [sys.executable, "-m", "website", "--root", str(root), "--out", str(folder), *options]
    return subprocess.run(
        [*alone(), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        env={**os.environ},
    )


class Built:
    """The pages as the generator got them, and the site that it made."""

    def __init__(self, folder: Path) -> None:
        done = build(folder)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        self.pages = folder / PAGES
        self.site = folder / SITE
