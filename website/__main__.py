"""The command `python -m website`: make the documentation site and check it.

The exit status is 0 if all is well, 1 if the generator or a check found something, 2 if the command makes no
sense. No network is needed.
"""

import argparse
import json
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from greenroom.errors import InvariantError, UsageError
from website.checks import problems_of
from website.navigation import navigation
from website.pages import assemble
from website.reference import write_reference

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "site"
PAGES, SITE, CONFIGURATION = "pages", "html", "zensical.toml"
_HERE = Path(__file__).parent


def configuration(pages: Path) -> str:
    """Return the generator's configuration: its file, with what depends on the pages in that folder."""
    told: dict[str, dict[str, object]] = {
        "project": {"docs_dir": PAGES, "site_dir": SITE, "nav": navigation(pages)},
        "project.theme": {"custom_dir": str(_HERE / "theme")},
        "project.plugins.mkdocstrings.handlers.python": {
            "paths": [str(ROOT / each) for each in ("store", "cluster")]
        },
        "project.plugins.mkdocstrings.handlers.python.options": {
            "extensions": [str(_HERE / "docstrings.py")]
        },
    }
    text = (_HERE / CONFIGURATION).read_text()
    for table, settings in told.items():
        above, heading, below = text.partition(f"\n[{table}]\n")
        if not heading:
            raise InvariantError(f"{CONFIGURATION} has no table {table}")
        lines = [f"{name} = {_inline(value)}\n" for name, value in settings.items()]
        text = "".join([above, heading, *lines, below])
    return text


def _inline(entry: object) -> str:
    """Return an entry of the navigation as TOML."""
    match entry:
        case dict():
            pairs = [f"{json.dumps(key)} = {_inline(value)}" for key, value in entry.items()]
            return f"{{ {', '.join(pairs)} }}"
        case list():
            return f"[{', '.join(_inline(each) for each in entry)}]"
        case _:
            return json.dumps(entry)


def build(root: Path, folder: Path) -> list[str]:
    """Make the site of the repository at `root` in a folder; return what is wrong with it."""
    for former in (PAGES, SITE, ".cache"):
        shutil.rmtree(folder / former, ignore_errors=True)
    pages = folder / PAGES
    assemble(root, pages)
    write_reference(pages / "reference")
    (folder / CONFIGURATION).write_text(configuration(pages))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", folder / CONFIGURATION]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        return [f"{made.stdout}{made.stderr}".strip() or f"the generator ended with {made.returncode}"]
    return problems_of(folder / SITE)


def serve(site: Path) -> None:
    """Show a site on loopback until Ctrl-C. Opened as files, pages have no search."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/ until Ctrl-C", flush=True)
        server.serve_forever()


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m website", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository; this one without")
    parser.add_argument("--out", type=Path, default=BUILD, help="where to build; build/site without")
    parser.add_argument("--serve", action="store_true", help="show the site on loopback afterwards")
    options = parser.parse_args()
    try:
        problems = build(options.root.resolve(), options.out.resolve())
    except UsageError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(problems) or f"the site is in {options.out / SITE}, and no link is broken")
    if problems:
        return 1
    if options.serve:
        try:
            serve(options.out / SITE)
        except KeyboardInterrupt:
            print("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
