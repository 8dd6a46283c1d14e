"""The pages tell the truth: their code runs, and what they name exists."""

import ast
import asyncio
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import typer

from greenroom import (
    ClusterStore,
    MemoryStore,
    SessionData,
    SqliteStore,
    ending_messages,
    near_messages,
    new_session_id,
    proofs,
    wire,
)
from greenroom.fields import utc_now
from greenroom.testing import CHECKS, Check, available_libraries, run_check
from greenroom.web import Session, SessionControl, SessionStatistics
from greenroom_cluster.cli.commands import app
from greenroom_cluster.coordination import messages
from greenroom_cluster.coordination.rules import RULES
from greenroom_cluster.shard import messages as peering
from greenroom_cluster.shard.state import records
from tests.packaging.environments import clean_environment, cluster_up
from website.reference import entries, modules_with_names

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / each / "README.md" for each in ("store", "cluster")),
    ]
)
BLOCK = re.compile(
    r"(?:<!-- (?P<marker>[a-z]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
RUN = """
import ast, asyncio, sys
code = compile(sys.stdin.read(), "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
outcome = eval(code, {"__name__": "__main__"})
if asyncio.iscoroutine(outcome):
    asyncio.run(outcome)
"""
DOCUMENTED_URL = "greenroom://127.0.0.1:7400"


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    marker: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["language"], found["marker"] or "", found["code"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def marked(marker: str) -> list[Block]:
    return [block for block in BLOCKS if block.marker == marker]


def module_of(marker: str) -> dict[str, Any]:
    """Execute the one block with that marker as a module."""
    (block,) = marked(marker)
    namespace: dict[str, Any] = {"__name__": marker}
    exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), namespace)
    return namespace


# --- code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_is_python(block: Block) -> None:
    compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_no_marker_is_forgotten() -> None:
    assert {block.marker for block in BLOCKS} == {"", "app", "check", "minutes", "run", "store", "web"}


@pytest.mark.system
def test_programs_run_on_a_cluster(tmp_path: Path) -> None:
    assert len(marked("run")) >= 2
    with cluster_up(Path(sys.executable).parent / "greenroom", tmp_path) as ready:
        for block in marked("run"):
            code = block.code.replace(DOCUMENTED_URL, ready["url"])
            assert code != block.code
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", RUN],
                input=code,
                capture_output=True,
                text=True,
                timeout=60,
                env=clean_environment(),
            )
            assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_app_keeps_its_carts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONS", "memory://")
    shop = module_of("app")["app"]

    async def main() -> None:
        transport = httpx.ASGITransport(shop)
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as browser:
            assert (await browser.post("/cart/mug")).status_code == 401
            assert (await browser.post("/login", json={"user": "alice"})).json() == {"user": "alice"}
            first = browser.cookies["session"]
            await asyncio.gather(browser.post("/cart/mug"), browser.post("/cart/rug"))
            assert (await browser.post("/cart/pan")).json() == {"mug": 1, "rug": 1, "pan": 1}
            await browser.post("/login", json={"user": "alice"})
            second = browser.cookies["session"]
            assert second != first
            assert (await browser.post("/cart/pan")).json() == {"mug": 1, "rug": 1, "pan": 1}
            await browser.post("/login", json={"user": "carol"})
            third = browser.cookies["session"]
            assert (await browser.post("/cart/pot")).json() == {"pot": 1}, "nothing of alice's"
            for nobody in (7, "", None):
                assert (await browser.post("/login", json={"user": nobody})).status_code == 400
            assert (await browser.get("/ready")).json() == {"ready": True}
            await browser.post("/logout")
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as stranger:
            for over in (first, second, third, "", "x" * 300, "gr-0000-"):
                headers = {"cookie": f"session={over}"}
                assert (await stranger.post("/cart/mug", headers=headers)).status_code == 401
                found = await stranger.post("/login", headers=headers, json={"user": "bob"})
                assert found.cookies["session"] != over
                stranger.cookies.clear()

    asyncio.run(main())


@pytest.mark.parametrize("library", available_libraries())
@pytest.mark.parametrize("check", [each for each in CHECKS if not each.features], ids=lambda each: each.name)
def test_custom_store_keeps_the_contract(check: Check, library: str) -> None:
    make_store: Callable[[], Any] = module_of("store")["DictStore"]
    assert run_check(check, make_store, library=library)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


# --- names -----------------------------------------------------------------------------------------------


def cells(page: str, column: int) -> set[str]:
    """Return what stands in backticks in that column of the page's tables."""
    found = set()
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("| "):
            found |= set(re.findall(r"`([^`]+)`", line.split(" | ")[column].strip("| ")))
    return found


def commands_of(group: Any) -> Iterator[Any]:
    """Yield the commands of a group, and of the groups in it."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from commands_of(command)
        else:
            yield command


def options_of_commands() -> dict[str, set[str]]:
    """Return every option of the command line with its variables."""
    found: dict[str, set[str]] = {}
    for command in commands_of(typer.main.get_command(app)):
        for parameter in command.params:
            if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                name = next(each for each in parameter.opts if each.startswith("--"))
                variable = parameter.envvar
                found.setdefault(name, set()).update(
                    [variable] if isinstance(variable, str) else variable or []
                )
    return found


def test_options_and_variables_are_all_told() -> None:
    options = options_of_commands()
    told: dict[str, set[str]] = {}
    for line in (ROOT / "docs/operations.md").read_text().splitlines():
        if line.startswith("| `--"):
            option, variable = re.findall(r"`([^`]+)`", line)[:2]
            told.setdefault(option, set()).add(variable)
    options.pop("--help", None)
    assert told == options


def variables_of_tests() -> set[str]:
    """Return the variables that the tests themselves read."""
    readers = (
        "browser/conftest",
        "cluster/shard/test_worlds",
        "cluster/shard/test_transcripts",
        "cluster/shard/test_roles_page",
        "cluster/steps/test_step_times",
        "hosts/story",
        "hosts/test_hosts",
        "store/test_scan",
        "browser/test_near_logout",
        "system/test_hostile_frames",
        "system/test_near",
        "system/test_sqlite",
    )
    code = "".join((ROOT / f"tests/{each}.py").read_text() for each in readers)
    return set(re.findall(r'"(GREENROOM_[A-Z_]+)"', code))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_and_variables_named_exist(page: Path) -> None:
    text = page.read_text()
    options = options_of_commands()
    variables = {variable for names in options.values() for variable in names}
    variables.add("GREENROOM_URL")  # what the examples read
    if page.stem == "contributing":
        variables |= variables_of_tests()
    for command in re.findall(r"^(?:uv run )?greenroom [a-z].*$", text, re.MULTILINE):
        for option in re.findall(r"--[a-z-]+", command.partition("#")[0]):
            assert option in options, f"{option} in {command!r}"
    for variable in re.findall(r"GREENROOM_[A-Z_]+[A-Z]", text):
        assert variable in variables, variable


def test_options_and_counters_of_sessions_are_all_told() -> None:
    told = cells("docs/memory-to-cluster.md", 0)
    counters = {each.name for each in dataclasses.fields(SessionStatistics)}
    assert told == set(inspect.signature(Session).parameters) | counters


def test_all_that_a_session_offers_is_told() -> None:
    told = {}
    for line in (ROOT / "docs/how-to/session.md").read_text().splitlines():
        if line.startswith("| `"):
            calls, awaited = line.split(" | ")[:2]
            told |= dict.fromkeys(re.findall(r"`(\w+)", calls), awaited == "yes")
    offered = {name: each for name, each in vars(SessionControl).items() if not name.startswith("_")}
    assert told == {name: inspect.iscoroutinefunction(each) for name, each in offered.items()}


def test_options_of_a_store_are_all_told() -> None:
    told = cells("store/README.md", 0)
    for store in (ClusterStore, SqliteStore):
        assert set(inspect.signature(store).parameters) <= told


def test_every_message_stands_in_the_table() -> None:
    tags = {
        each.__struct_config__.tag: name
        for module in (wire, near_messages, ending_messages, proofs, peering, messages, records)
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, wire.Frame) and each.__struct_config__.tag is not None
        # A `Session` and a `Held`, as their senders have them.
        if each not in (wire.EncodedSession, near_messages.EncodedHeld)
    }
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE)
    assert {int(tag): name for tag, name in rows} == tags
    assert [int(tag) for tag, _ in rows] == sorted(tags)


def test_every_kind_of_proposal_stands_in_the_table() -> None:
    assert set(RULES) <= cells("docs/protocol.md", 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert "://" not in target, f"the pages stand alone, without {target}"
        assert not target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", page.read_text()):
        other = page.parent / target if target else page
        headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_named_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / path).exists(), path
        assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
            f"{path}::{name}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    bases = [ROOT, ROOT / "store", ROOT / "cluster", ROOT / "cluster/greenroom_cluster"]
    for path in re.findall(r"`(\w+/[\w./-]+\.(?:py|toml))`", page.read_text()):
        assert any((base / path).exists() for base in bases), path


def source_text() -> str:
    """Return the product's source, string literals joined and their fields shown as three dots."""
    files = sorted((*ROOT.glob("store/greenroom/**/*.py"), *ROOT.glob("cluster/greenroom_cluster/**/*.py")))
    joined = re.sub(r'["\']\s+f?["\']', "", "\n".join(each.read_text() for each in files))
    return re.sub(r"\{[^{}]*\}", "...", joined)


def test_errors_and_events_of_troubleshooting_exist() -> None:
    source = source_text()
    named = [
        text
        for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines()
        if line.startswith("| ") and line.count(" | ") == 2
        for text in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]
    assert len(named) > 50
    for text in named:
        for part in text.split("..."):
            assert part.strip(" :()") in source, text


def test_promises_of_the_facade_readme_hold() -> None:
    """Its table of what merges, run."""

    async def merged(first: Any, *patches: Any) -> Any:
        async with MemoryStore() as store:
            session = SessionData(
                session_id=new_session_id(), expires=utc_now().replace(year=utc_now().year + 1), data=first
            )
            await store.create(session)
            for patch in patches:
                await store.patch(session.session_id, set=patch)
            found = await store.get(session.session_id)
            assert found is not None
            return found.data

    async def main() -> None:
        cart = {"cart": {"sku-1": 1}}
        three = await merged(cart, {("cart", "sku-2"): 1}, {("cart", "sku-3"): 1})
        assert three == {"cart": {"sku-1": 1, "sku-2": 1, "sku-3": 1}}
        both = await merged(cart, {"cart": {"sku-2": 1}}, {"theme": "dark"})
        assert both == {"cart": {"sku-1": 1, "sku-2": 1}, "theme": "dark"}
        one = await merged({"cart": ["sku-1"]}, {"cart": ["sku-1", "sku-2"]}, {"cart": ["sku-1", "sku-3"]})
        assert one == {"cart": ["sku-1", "sku-3"]}
        assert await merged({"visits": 1}, {"visits": 2}, {"visits": 2}) == {"visits": 2}

    asyncio.run(main())


def test_figures_of_sizing_are_those_that_were_measured() -> None:
    """Each row of its tables names a page on which its figures stand."""
    page = ROOT / "docs/sizing.md"
    rows = [
        line
        for line in page.read_text().splitlines()
        if line.startswith("| ") and re.search(r"\]\((benchmarks/[\w/]+|simulations)\.md\) \|$", line)
    ]
    assert len(rows) > 20
    for row in rows:
        *cells, source = row.strip("| ").split(" | ")
        link = re.search(r"\]\(([\w/]+\.md)\)", source)
        assert link is not None
        measured = (page.parent / link[1]).read_text()
        for figure in re.findall(r"\d[\d,.]*\d|\d", " ".join(cells[1:])):
            assert re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d,.]*\d)", measured), (
                f"{figure} in {link[1]}: {row}"
            )


# --- errors ------------------------------------------------------------------------------------------------


# Those by which an operation fails that was called rightly. A `UsageError` says what to change itself, and a
# `RemoteProtocolError` has a row for its class: what to do is the same for all of them.
ERRORS_TOLD = {
    *("UnavailableError", "StoreFullError", "OutcomeUnknownError", "UnreadableSessionError"),
    *("LocalProtocolError", "UnsupportedError"),
    *("SessionDataError", "SessionNotLoadedError", "SessionOverError"),
}
# A text shorter than this only passes on another one, which is raised or named elsewhere.
ERROR_WORDS_MIN = 3
FIELD = "\0"


class Raised(NamedTuple):
    """An error as the code makes it: where, of which class, with which text (its fields are marked)."""

    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.place} {self.kind}: {self.text.replace(FIELD, '...')}"


def text_of(node: ast.expr) -> str:
    """Return the literal text of an expression, each field of it as a mark."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(each) for each in values)
        case ast.BinOp(left=left, right=right):
            return text_of(left) + text_of(right)
    return FIELD


def errors_in(path: Path) -> Iterator[Raised]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS_TOLD:
            text = text_of(node.args[0]) if node.args else ""
            if len(text.replace(FIELD, " ").split()) >= ERROR_WORDS_MIN:
                yield Raised(f"{path.relative_to(ROOT)}:{node.lineno}", node.func.id, text)


RAISED = [
    raised
    for source in ("store/greenroom", "cluster/greenroom_cluster")
    for path in sorted((ROOT / source).rglob("*.py"))
    if "testing" not in path.parts  # what tests raise on purpose
    for raised in errors_in(path)
]


@cache
def rows_of_troubleshooting() -> list[list[str]]:
    """Return the texts of the page, each in the parts between its dots."""
    rows = [
        line.split(" | ")[0]
        for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines()
        if line.startswith("| ") and line.count(" | ") == 2
    ]
    texts = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    return [[part for each in text.split("...") if (part := each.strip(" :()"))] for text in texts]


def is_told(text: str, parts: list[str]) -> bool:
    """Whether the text has these parts in their order."""
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return bool(parts)


def test_the_code_has_errors_to_be_rows_of_troubleshooting() -> None:
    assert len(RAISED) > 40
    assert {each.kind for each in RAISED} == ERRORS_TOLD


@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: raised.place)
def test_an_error_of_an_operation_has_a_row(raised: Raised) -> None:
    rows = rows_of_troubleshooting()
    assert any(is_told(raised.text, parts) for parts in rows), str(raised)


def test_parts_count_in_their_order_only() -> None:
    assert is_told(f"a {FIELD} b", ["a", "b"])
    assert not is_told(f"b {FIELD} a", ["a", "b"])
    assert not is_told("a", [])


def test_an_event_that_is_an_error_has_a_row() -> None:
    """What the cluster's log calls an error or critical asks for action."""
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/troubleshooting.md").read_text()))
    missing = []
    for line in (ROOT / "docs/operations.md").read_text().splitlines():
        if line.startswith("| `") and line.count(" | ") >= 3:
            events, level = line.split(" | ")[:2]
            found = re.findall(r"`(\w+)`", events)
            if {"error", "critical"} & set(re.findall(r"\w+", level)) and not set(found) & named:
                missing += found
    assert missing == [], "no row on the page of troubleshooting"


# --- the reference ----------------------------------------------------------------------------------------


def test_every_module_with_public_names_is_in_the_reference() -> None:
    """A module says by `__all__` which of its names are for others; each of those stands somewhere."""
    told = {id(getattr(import_module(each.module), each.name)) for _, _, found in entries() for each in found}
    modules = modules_with_names()
    assert len(modules) > 8
    for name in modules:
        module = import_module(name)
        assert {id(getattr(module, each)) for each in module.__all__} <= told, name


def test_what_the_pages_import_is_in_the_reference() -> None:
    """Name it in a chapter of `website/reference.py`."""
    told = {each.path for _, _, found in entries() for each in found}
    elsewhere = {each.name for _, _, found in entries() for each in found}
    imports = re.compile(r"^from (greenroom[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    count = 0
    for page in PAGES:
        for module, names in imports.findall(page.read_text()):
            for name in (each.partition(" as ")[0].strip() for each in names.split(",")):
                count += 1
                if inspect.ismodule(getattr(import_module(module), name)):
                    continue  # told as a whole by the page of the protocol
                if module == "greenroom.dialog.operations":
                    continue  # one of its kinds, which all look alike
                assert f"{module}.{name}" in told or name in elsewhere, f"{page}: {module}.{name}"
    assert count > 40
