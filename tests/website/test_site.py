"""The site of the pages is made without a network, is whole, and its readers load nothing from elsewhere."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.website.building import ROOT, Built, build
from website.__main__ import CONFIGURATION, configuration
from website.checks import problems_of
from website.docstrings import fenced
from website.navigation import navigation
from website.pages import assemble, linked, site_path
from website.reference import INTERNAL, Chapter, _with_the_rest, commands, entries, everything

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("site"))


def leaves(entry: Any) -> list[str]:
    """Return the pages of a navigation."""
    match entry:
        case dict():
            return [page for part in entry.values() for page in leaves(part)]
        case list():
            return [page for part in entry for page in leaves(part)]
    return [entry]


def a_repository(folder: Path, **pages: str) -> Path:
    """Return a repository that has these pages in docs/, and nothing else."""
    (folder / "docs").mkdir(parents=True)
    for name, text in pages.items():
        (folder / "docs" / f"{name}.md").write_text(text)
    return folder


# --- what is in it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", DOCUMENTS)
def test_a_page_of_the_docs_is_a_page_of_the_site(page: str, built: Built) -> None:
    made = built.site / site_path(page).with_suffix(".html")
    title = re.search(r"^# (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert title is not None
    assert f"{re.sub('[`*]', '', title[1]).partition('&')[0]}"[:12] in re.sub(
        r"<[^>]*>", "", made.read_text()
    )


def test_every_page_has_one_place_in_the_navigation(built: Built) -> None:
    pages = [str(path.relative_to(built.pages)) for path in built.pages.rglob("*.md")]
    assert Counter(leaves(navigation(built.pages))) == Counter(pages)


def test_a_page_that_nobody_placed_is_found_all_the_same(tmp_path: Path) -> None:
    a_repository(tmp_path, index="# A", stray="# Stray")
    for folder in ("how-to", "runbooks", "decisions"):
        (tmp_path / "docs" / folder).mkdir()
        (tmp_path / "docs" / folder / "fresh.md").write_text("# Fresh")
    pages = tmp_path / "pages"
    assemble(tmp_path, pages)
    assert {"stray.md", "how-to/fresh.md", "runbooks/fresh.md", "decisions/fresh.md"} < set(
        leaves(navigation(pages))
    )


def test_a_page_outside_the_docs_comes_along_if_it_is_linked(built: Built) -> None:
    outside = {
        target
        for page in DOCUMENTS
        for target in linked((ROOT / page).read_text())
        if not (ROOT / page).parent.joinpath(target).resolve().is_relative_to(ROOT / "docs")
    }
    assert len(outside) > 10
    assert (built.site / "project/store.html").exists()
    assert "FastAPI" in (built.site / "project/examples/fastapi_app.py.html").read_text()


def test_what_is_linked_within_code_is_no_link() -> None:
    assert linked("[a](b.md#c) ![d](e.svg)\n```sh\n[x](y.md)\n```\n[far](https://example.org/)") == [
        "b.md",
        "e.svg",
    ]


def test_the_search_finds_pages_and_the_reference(built: Built) -> None:
    index = json.loads((built.site / "search.json").read_text())
    places = {item["location"].partition("#")[0] for item in index["items"]}
    assert {"guarantees.html", "reference/greenroom.html", "reference/commands.html"} <= places


# --- the reference -----------------------------------------------------------------------------------------


def test_every_public_name_and_command_is_told_once() -> None:
    told = Counter(everything())
    assert [name for name, times in told.items() if times > 1] == []
    assert len(told) > 120


def test_every_public_name_has_a_place_in_the_page(built: Built) -> None:
    for chapter, _, found in entries():
        page = (built.site / "reference" / chapter.file).with_suffix(".html").read_text()
        for each in found:
            assert page.count(f'id="{each.path}"') == 1, each.path


def test_every_name_of_the_reference_says_what_it_is(built: Built) -> None:
    for chapter, _, found in entries():
        page = (built.site / "reference" / chapter.file).with_suffix(".html").read_text()
        for number, each in enumerate(found):
            begin = page.index(f'id="{each.path}"')
            end = page.index(f'id="{found[number + 1].path}"') if number + 1 < len(found) else len(page)
            assert re.search(r"<p>\w", page[begin:end]), f"{each.path} has no docstring"


def test_every_option_of_every_command_is_told(built: Built) -> None:
    page = (built.pages / "reference/commands.md").read_text()
    sections = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n?)*)", page, re.MULTILINE))
    found = dict(commands())
    assert set(sections) == set(found)
    for words, command in found.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help":
                assert all(f"`{each}`" in sections[words] for each in parameter.opts), (words, parameter.name)


def test_examples_at_a_prompt_become_code() -> None:
    text = "Do it.\n\n    >>> a = 1\n    >>> if a:\n    ...     b()\n\nThen more."
    assert fenced(text) == "Do it.\n\n```python\na = 1\nif a:\n    b()\n```\n\nThen more."


def test_a_module_that_no_chapter_names_is_told_all_the_same() -> None:
    (chapter,) = _with_the_rest((Chapter("a.md", "greenroom.web", "", ()),))
    modules = [part.module for part in chapter.parts]
    assert "greenroom.integrations.fastapi" in modules
    assert not set(modules) & set(INTERNAL)


# --- what it lets its readers load -------------------------------------------------------------------------


def test_every_page_forbids_the_browser_to_load_from_elsewhere(built: Built) -> None:
    pages = sorted(built.site.rglob("*.html"))
    assert len(pages) > len(DOCUMENTS)
    for page in pages:
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.read_text())
        assert policy is not None, page
        assert policy[1].startswith("default-src 'none';")
        assert "http" not in policy[1], "no origin but its own"


def test_no_font_comes_from_elsewhere(built: Built) -> None:
    assert not any("fonts.g" in page.read_text() for page in built.site.rglob("*.html"))
    assert problems_of(built.site) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<script src="https://example.org/a.js"></script>', "https://example.org/a.js is elsewhere"),
        ('<img src="//example.org/a.png">', "//example.org/a.png is elsewhere"),
        ('<a href="http://example.org/">x</a>', "http://example.org/ is elsewhere"),
        (
            '<p style="background:url(https://example.org/a.png)">x</p>',
            "https://example.org/a.png is elsewhere",
        ),
        ('<img srcset="a.png 1x, b.png 2x">', "a.png leads nowhere"),
        ('<a href="nowhere.html">x</a>', "nowhere.html leads nowhere"),
        ('<a href="#nothing">x</a>', "#nothing: there is no such anchor"),
        ('<a href="other.html#nothing">x</a>', "other.html#nothing: there is no such anchor"),
        ('<a href="other.html#there">x</a> <a href="/other.html">y</a> <img src="data:,">', ""),
    ],
)
def test_what_is_wrong_with_a_page_is_found(body: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f"<html>{body}</html>")
    (tmp_path / "other.html").write_text('<h1 id="there">x</h1>')
    found = problems_of(tmp_path)
    assert (f"index.html: {problem}" in found) if problem else found == []


def test_a_style_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@font-face{src:url("https://example.org/a.woff2")}b{mask:url(data:,)}')
    assert problems_of(tmp_path) == ["a.css: https://example.org/a.woff2 comes from elsewhere"]


# --- what the command refuses ------------------------------------------------------------------------------


def test_a_link_to_a_missing_file_fails_the_build(tmp_path: Path) -> None:
    root = a_repository(tmp_path / "repository", index="# A\n\n[b](missing.md)\n")
    done = build(tmp_path / "out", root=root)
    assert done.returncode == 2
    assert "docs/index.md links to missing.md" in done.stderr


def test_a_link_to_a_missing_anchor_fails_the_build(tmp_path: Path) -> None:
    """The generator itself is strict: it ends with an error, and says where."""
    root = a_repository(
        tmp_path / "repository",
        index="# A\n\n[b](b.md#nothing)\n",
        options="# O",
        b="# B",
        operations="# X\n\n## Options",
    )
    done = build(tmp_path / "out", root=root)
    assert done.returncode == 1
    assert "index.md" in done.stdout


def test_what_was_in_the_folder_stays_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    root = a_repository(tmp_path / "repository", index="# A\n\n[b](missing.md)\n")
    build(tmp_path, root=root)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_configuration_is_that_of_the_file_with_the_pages(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# A")
    told = tomllib.loads(configuration(tmp_path))["project"]
    kept = tomllib.loads((ROOT / "website" / CONFIGURATION).read_text())["project"]
    assert told["theme"]["font"] is False
    assert set(kept) < set(told)
    assert leaves(told["nav"]) == ["index.md"]
    assert [each.get("scheme") for each in told["theme"]["palette"]] == [None, "default", "slate"]
