"""Which file of the repository stands where in the site, and the pages' links brought in line with that.

The pages are written to be read in the repository, and link to files all over it. In the site docs/ is the
root; whatever else a page links to comes along below project/: a page as a page, code as a page with it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from greenroom.errors import UsageError

_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
_FENCED = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_OUTSIDE = PurePosixPath("project")
_MADE_PAGES = {"store/greenroom/web/control.py": PurePosixPath("reference/web.md")}
"""Code that the reference shows."""


def site_path(path: str) -> PurePosixPath:
    """Return where a file of the repository stands in the site."""
    place = PurePosixPath(path)
    if path in _MADE_PAGES:
        return _MADE_PAGES[path]
    if place.parts[0] == "docs":
        return PurePosixPath(*place.parts[1:])
    if place.name == "README.md" and place.parent.name:
        return (_OUTSIDE / place.parent).with_suffix(".md")
    if place.suffix == ".md":
        return _OUTSIDE / place.with_name(place.name.lower())
    return _OUTSIDE / f"{place}.md"


def linked(text: str) -> list[str]:
    """Return the targets of a page's links within the repository, without their anchors."""
    return [target for target in _LINK.findall(_FENCED.sub("", text)) if "://" not in target]


def assemble(root: Path, target: Path) -> list[str]:
    """Write the site's pages below `target`; return the files of the repository that they come from."""
    known = sorted(str(path.relative_to(root)) for path in (root / "docs").rglob("*") if path.is_file())
    waiting = list(known)
    while waiting:
        path = waiting.pop()
        place = target / site_path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith(".md"):
            place.write_bytes(_shown(root, path))
            continue
        text = (root / path).read_text()
        for other in _resolved(root, path, linked(text)):
            if other not in known and other not in _MADE_PAGES:
                known.append(other)
                waiting.append(other)
        place.write_text(_moved(root, path, text))
    return known


def _resolved(root: Path, path: str, targets: Iterable[str]) -> list[str]:
    """Return the files of the repository that a page's links lead to."""
    found = []
    for target in targets:
        other = os.path.normpath(PurePosixPath(path).parent / target)
        if not (root / other).is_file():
            raise UsageError(f"{path} links to {target}, and there is no such file: mend the link")
        found.append(other)
    return found


def _moved(root: Path, path: str, text: str) -> str:
    """Return a page with its links as they are in the site; what is code stays as it is."""
    here = site_path(path).parent

    def turn(link: re.Match[str]) -> str:
        if "://" in link[0]:
            return link[0]
        (other,) = _resolved(root, path, [link[0]])
        return os.path.relpath(site_path(other), here)

    parts, end = [], 0
    for block in _FENCED.finditer(text):
        parts += [_LINK.sub(turn, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _LINK.sub(turn, text[end:])])


def _shown(root: Path, path: str) -> bytes:
    """Return what stands in the site for a file that is no page: itself, or outside docs/ a page with it."""
    place = PurePosixPath(path)
    if place.parts[0] == "docs":
        return (root / path).read_bytes()
    language = _LANGUAGES.get(place.suffix, "text")
    return f"# {path}\n\n````{language}\n{(root / path).read_text().rstrip()}\n````\n".encode()
