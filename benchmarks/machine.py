"""The machine, the versions and the commit that figures were taken with. No names, no addresses."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

_CODE = ("store", "cluster", "benchmarks")
_PACKAGES = ("greenroom", "greenroom-cluster", "msgspec", "trio", "tractor", "uvloop")


def machine() -> dict[str, str]:
    """Return what determines speed: processor, cores, memory, kernel, interpreter."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages / (1 << 30):.1f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load_average() -> float:
    """Return how many processes wanted to run during the last minute."""
    return os.getloadavg()[0]


def versions() -> dict[str, str]:
    """Return the versions of our own distributions and of what they stand on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the code, with a plus if it was changed since; empty outside of a checkout."""
    program = shutil.which("git")
    if program is None:
        return ""

    def said(*words: str) -> str:
        return subprocess.run([program, *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = "+" if said("status", "--porcelain", "--", *_CODE) else ""
    found = said("rev-parse", "--short=10", "HEAD")
    return found + changed if found else ""
