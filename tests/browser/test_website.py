"""A reader with a real browser: the site searches, is light or dark, and asks nobody else for anything."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.website.building import Built

PAGES = (
    *("index.html", "architecture.html", "benchmarks/index.html", "reference/greenroom.html"),
    *("decisions/index.html", "project/store.html", "how-to/fastapi.html"),
)
VIOLATION = """
new Promise(resolve => {
    document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
    const image = new Image();
    image.src = "http://localhost:9/elsewhere.png";
    document.body.append(image);
})
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    site = Built(tmp_path_factory.mktemp("site")).site
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Reader:
    """A browser, with all that it asked for and all that it complained about."""

    def __init__(self, chrome: Any, scheme: str = "light", **options: Any) -> None:
        self.context = chrome.new_context(color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


@pytest.fixture
def reader(chrome: Any) -> Iterator[Reader]:
    reader = Reader(chrome)
    yield reader
    reader.context.close()


@pytest.mark.browser
def test_pages_load_from_their_own_origin_alone(reader: Reader, url: str) -> None:
    for page in PAGES:
        reader.page.goto(f"{url}/{page}", wait_until="networkidle")
        assert reader.page.locator("h1").first.inner_text()
    assert len(reader.asked) > len(PAGES)
    assert [each for each in reader.asked if not each.startswith((f"{url}/", "data:", "blob:"))] == []
    assert reader.complaints == []


@pytest.mark.browser
def test_the_browser_refuses_what_comes_from_elsewhere(reader: Reader, url: str) -> None:
    reader.page.goto(f"{url}/index.html")
    assert reader.page.evaluate(VIOLATION) == "img-src"


@pytest.mark.browser
def test_a_search_leads_to_a_page(reader: Reader, url: str) -> None:
    reader.page.goto(f"{url}/index.html", wait_until="networkidle")
    reader.page.keyboard.press("/")
    reader.page.keyboard.type("rolling restart")
    # The words of the page itself: its title stands in the navigation as well.
    reader.page.locator("a", has_text="every node of a running cluster").first.click()
    reader.page.wait_for_url("**/how-to/rolling-restart.html*")
    assert reader.page.locator("h1").first.inner_text().startswith("Rolling restart")


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "told"), [("light", "default"), ("dark", "slate")])
def test_it_is_light_or_dark_as_the_system_is(chrome: Any, url: str, scheme: str, told: str) -> None:
    reader = Reader(chrome, scheme)
    reader.page.goto(f"{url}/architecture.html", wait_until="networkidle")
    assert reader.page.locator("body").get_attribute("data-md-color-scheme") == told
    reader.context.close()


@pytest.mark.browser
def test_all_figures_are_shown(reader: Reader, url: str) -> None:
    for page in ("architecture.html", "benchmarks/index.html", "simulations.html"):
        reader.page.goto(f"{url}/{page}", wait_until="networkidle")
        widths = reader.page.locator("article img").evaluate_all("all => all.map(each => each.naturalWidth)")
        assert widths
        assert all(widths), page
