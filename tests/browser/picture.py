"""Make the README's picture of the dashboard anew: `uv run python -m tests.browser.picture`.

A cluster runs under load, an actor is killed, and the page is taken a moment after others took over.
"""

import sys
from pathlib import Path
from typing import Any

from tests.browser.conftest import FLAGS, chromium, what_is_missing
from tests.browser.watched import Watched, show_token, watched_cluster

PICTURE = Path(__file__).parent.parent.parent / "docs" / "images" / "dashboard.png"
WIDTH, HEIGHT = 960, 1160
SESSIONS = 200
WATCHED_MILLISECONDS = 25_000.0
"""So much of the last minutes has a line in the charts."""


def take(browser: Any, watched: Watched, file: Path, width: int = WIDTH, scheme: str = "light") -> None:
    """Show the dashboard to a browser for a while, kill an actor, and take a picture."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": HEIGHT})
    page = context.new_page()
    show_token(page, watched)
    with watched.load():
        page.wait_for_timeout(WATCHED_MILLISECONDS)
        watched.kill_actor(watched.status().shards[0].primary)
        page.locator("#shards > li[data-state=alone], #shards > li[data-state=joining]").first.wait_for()
        page.screenshot(path=file, full_page=width < WIDTH)
    context.close()
    watched.wait_healthy()


def main() -> None:
    """Take the picture; with a folder as argument, others too: dark, and on a phone."""
    if missing := what_is_missing():
        raise SystemExit(missing)
    from playwright.sync_api import sync_playwright

    with watched_cluster() as watched, sync_playwright() as playwright:
        watched.write(SESSIONS)
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        take(browser, watched, PICTURE)
        for folder in map(Path, sys.argv[1:]):
            take(browser, watched, folder / "dark.png", scheme="dark")
            take(browser, watched, folder / "phone.png", width=390)
        browser.close()


if __name__ == "__main__":
    main()
