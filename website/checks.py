"""What must hold of a built site: links lead somewhere, anchors exist, and nothing comes from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_STYLE_URL = re.compile(r"url\(\s*[\"']?([^\"')]+)")
_REFERENCES = {"href", "src", "data", "poster", "action"}


class _Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in _REFERENCES:
                self.links.append(value)
            elif name == "srcset":
                self.links += [each.split()[0] for each in value.split(",")]
            elif name == "style":
                self.links += _STYLE_URL.findall(value)


def problems_of(site: Path) -> list[str]:
    """Return what is wrong with the site in that folder, a line each."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        told = path.relative_to(site)
        found += [
            f"{told}: {problem}" for link in page.links if (problem := _problem(site, path, link, pages))
        ]
    for style in sorted(site.rglob("*.css")):
        found += [
            f"{style.relative_to(site)}: {link} comes from elsewhere"
            for link in _STYLE_URL.findall(style.read_text())
            if _is_foreign(link)
        ]
    return found


def _problem(site: Path, path: Path, link: str, pages: dict[Path, _Page]) -> str:
    if _is_foreign(link):
        return f"{link} is elsewhere"
    parts = urlsplit(link)
    if parts.scheme:
        return ""  # what stands in the link itself, as `data:` does
    # The page that is shown for a missing one is shown anywhere, so its links start at the root.
    base = site if parts.path.startswith("/") else path.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return f"{link} leads nowhere"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"{link}: there is no such anchor"
    return ""


def _is_foreign(link: str) -> bool:
    parts = urlsplit(link.strip())
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp", "ws", "wss")
