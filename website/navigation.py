"""The order of the pages. A page that is not named here still stands in its section, after those that are."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

_APPS = (
    *("session", "fastapi", "litestar", "quart", "aiohttp", "starsessions", "servers", "sqlite", "migrate"),
    *("merging", "test-an-app", "observe", "near-cache", "deadlines", "custom-store", "drive-the-dialog"),
)
_CLUSTERS = (
    *("deploy", "one-host", "certificates", "tokens", "tls", "durability", "back-up", "zones", "etcd"),
    *("rolling-restart", "upgrade"),
)
_START = ("index", "tutorial", "memory-to-cluster")
_OPERATE = ("operations", "metrics", "sizing", "troubleshooting")
_EXPLAIN = ("guarantees", "security", "architecture", "protocol", "simulations")
_REFERENCE = (
    *("reference/index", "reference/greenroom", "reference/web", "reference/integrations"),
    *("reference/observing", "reference/testing", "reference/parts", "reference/commands", "options"),
)

_LINKED = re.compile(r"\]\(([\w/-]+)\.md\)")


def navigation(pages: Path) -> list[Any]:
    """Return the navigation of the pages below that folder, each of them once."""
    left = sorted(str(path.relative_to(pages).with_suffix("")) for path in pages.rglob("*.md"))

    def take(names: Iterable[str], folder: str = "") -> list[str]:
        wanted = [str(PurePosixPath(folder) / name) for name in names]
        taken = [name for name in dict.fromkeys(wanted) if name in left]
        for name in taken:
            left.remove(name)
        return [f"{name}.md" for name in taken]

    def rest(of: Callable[[str], bool]) -> list[str]:
        # What is nearer to the top comes first.
        return take(sorted((name for name in left if of(name)), key=lambda name: name.count("/")))

    def section(title: str, *parts: list[Any]) -> list[Any]:
        """Return a section, or nothing if nothing is in it."""
        entries = [entry for part in parts for entry in part]
        return [{title: entries}] if entries else []

    decisions = take(["index", *_order(pages / "decisions")], "decisions")
    apps, clusters = take(_APPS, "how-to"), take(_CLUSTERS, "how-to")
    return [
        *section("Start", take(_START)),
        *section("How-to", section("Apps", apps), section("Clusters", clusters, rest(_below("how-to")))),
        *section(
            "Operate",
            take(_OPERATE),
            section("Runbooks", take(["runbooks/index"]), rest(_below("runbooks"))),
        ),
        *section("Reference", take(_REFERENCE), rest(_below("reference"))),
        *section("Explanation", take(_EXPLAIN), section("Decisions", decisions, rest(_below("decisions")))),
        *section("Benchmarks", take(["index"], "benchmarks"), rest(_below("benchmarks"))),
        *section(
            "Project",
            take(["contributing"]),
            rest(_pages_of_project),
            section("Files", rest(_below("project"))),
        ),
        *section("More", rest(lambda _: True)),
    ]


def _below(folder: str) -> Callable[[str], bool]:
    """Return what says whether a page is in that folder."""
    return lambda name: name.startswith(f"{folder}/")


def _pages_of_project(name: str) -> bool:
    """Whether it was written as a page, not made of code that a page links to."""
    return name.startswith("project/") and not PurePosixPath(name).suffix and name != "project/LICENSE"


def _order(folder: Path) -> list[str]:
    """Return the pages in the order in which the folder's own index names them."""
    index = folder / "index.md"
    return _LINKED.findall(index.read_text()) if index.exists() else []
