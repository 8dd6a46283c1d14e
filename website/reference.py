"""The reference: every public name of the library once, from its docstring, and every command."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import typer
from msgspec.structs import replace

from greenroom.errors import InvariantError
from greenroom_cluster.cli.commands import app
from website.docstrings import fenced

_INTEGRATIONS = ("fastapi", "litestar", "quart", "aiohttp", "starsessions", "moving")
_SOURCE = Path(__file__).parent.parent / "store"
_TELLS_NAMES = re.compile(r"^__all__ = ", re.MULTILINE)

INTERNAL = {
    "greenroom.web.errors": "its names are in greenroom.web where they are public; the rest are log lines",
    "greenroom.web.visit": "adapters drive it; its class is in greenroom.web",
}
"""Modules whose `__all__` is for the library itself, and why."""
_BUILT_IN_OPTIONS = frozenset({"help"})


class Part(msgspec.Struct, frozen=True):
    """A module, and which of its names are public: those of its `__all__` unless they are named here."""

    module: str
    names: tuple[str, ...] = ()


class Chapter(msgspec.Struct, frozen=True):
    """A page of the reference."""

    file: str
    title: str
    about: str
    parts: tuple[Part, ...]


class Entry(msgspec.Struct, frozen=True):
    """A public name and where it is imported from."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """The whole dotted name."""
        return f"{self.module}.{self.name}"


_CHAPTERS = (
    Chapter("greenroom.md", "greenroom", "stores, sessions and errors", (Part("greenroom"),)),
    Chapter("web.md", "greenroom.web", "sessions of web apps", (Part("greenroom.web"),)),
    Chapter(
        "integrations.md",
        "greenroom.integrations",
        "frameworks, and moving from other libraries",
        tuple(Part(f"greenroom.integrations.{each}") for each in _INTEGRATIONS),
    ),
    Chapter(
        "observing.md",
        "greenroom.observing",
        "metrics and traces of an app's sessions",
        (
            Part("greenroom.observing"),
            Part("greenroom.observing.prometheus"),
            Part("greenroom.observing.opentelemetry"),
        ),
    ),
    Chapter(
        "testing.md",
        "greenroom.testing",
        "tests of apps and of stores",
        (
            Part("greenroom.testing"),
            Part("greenroom.testing.stateful", ("StoreMachine",)),
            Part("greenroom.testing.plugin", ("greenroom_cluster",)),
        ),
    ),
    Chapter(
        "parts.md",
        "Parts for stores and clients",
        "what a store of your own, or a client of your own, is made of",
        (
            Part("greenroom.sessions"),
            Part("greenroom.ids", ("check_session_id", "is_session_id", "locate")),
            Part("greenroom.fields", ("check_data_size", "checked_label", "checked_user_id", "micros_of")),
            Part("greenroom.codec", ("decode_data", "encode_data")),
            Part("greenroom.dialog", ("Abort", "Close", "Dialog", "DialogSettings", "Open")),
            Part("greenroom.dialog.runner", ("DialogRunner",)),
            Part("greenroom.dialog.operations", ("Kind",)),
            Part("greenroom.loopback_secrets", ("LoopbackSecrets",)),
            Part("greenroom.proofs", ("NONCE_BYTES",)),
        ),
    ),
)


def modules_with_names() -> list[str]:
    """Return the modules of the library that say which of their names are for others."""
    found = []
    for path in sorted((_SOURCE / "greenroom").rglob("*.py")):
        if _TELLS_NAMES.search(path.read_text()):
            parts = path.relative_to(_SOURCE).with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return [name for name in found if name not in INTERNAL]


def _with_the_rest(chapters: tuple[Chapter, ...]) -> tuple[Chapter, ...]:
    """Return the chapters with the modules that none of them names: in that of their package, or the last."""
    named = {part.module for chapter in chapters for part in chapter.parts}
    homes: dict[str, list[Part]] = {}
    for module in modules_with_names():
        if module not in named:
            home = module.rpartition(".")[0]
            titles = {chapter.title for chapter in chapters}
            homes.setdefault(home if home in titles else chapters[-1].title, []).append(Part(module))
    return tuple(replace(each, parts=(*each.parts, *homes.get(each.title, ()))) for each in chapters)


CHAPTERS = _with_the_rest(_CHAPTERS)


def public_names(part: Part) -> tuple[str, ...]:
    """Return the public names of a module in the order in which it gives them."""
    return part.names or tuple(import_module(part.module).__all__)


def entries() -> Iterator[tuple[Chapter, Part, list[Entry]]]:
    """Yield what each part of each chapter tells: a name that several modules offer only at the first."""
    told: dict[int, Any] = {}  # with the objects, so that an identity stays that of one
    for chapter in CHAPTERS:
        for part in chapter.parts:
            module = import_module(part.module)
            found = []
            for name in public_names(part):
                value = getattr(module, name)
                # Equal numbers are often one object, and still two names.
                if isinstance(value, int | float) or id(value) not in told:
                    told[id(value)] = value
                    found.append(Entry(part.module, name))
            yield chapter, part, found


def write_reference(folder: Path) -> None:
    """Write the pages of the reference into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, list[str]] = {}
    for chapter, part, found in entries():
        page = pages.setdefault(chapter.file, [f"# {chapter.title}\n"])
        if len(chapter.parts) > 1:
            page.append(f"## {part.module} {{ #{part.module} }}\n")
        page.append(_about(import_module(part.module)))
        level = 3 if len(chapter.parts) > 1 else 2
        page += [f"::: {each.path}\n    options:\n      heading_level: {level}\n" for each in found]
    for file, lines in pages.items():
        (folder / file).write_text("\n".join(lines))
    (folder / "index.md").write_text(_index())
    (folder / "commands.md").write_text("\n".join(_commands()))


def _about(module: ModuleType) -> str:
    if module.__doc__ is None:
        raise InvariantError(f"{module.__name__} has no docstring")
    return fenced(inspect.cleandoc(module.__doc__)) + "\n"


def _index() -> str:
    rows = [f"| [{each.title}]({each.file}) | {each.about} |" for each in CHAPTERS]
    return "\n".join(
        [
            "# Reference",
            "",
            "From the docstrings of the code, and from the command line itself. `greenroom` is the library",
            "of apps; of `greenroom-cluster` the commands are public, and nothing else.",
            "",
            "| page | what |",
            "|---|---|",
            *rows,
            "| [The command line](commands.md) | every command of `greenroom`, with all its options |",
            "| [Options](../options.md) | what the options of the library take, and what is refused |",
            "| [Operations](../operations.md) | what the options of the commands mean, limits and events |",
            "",
        ]
    )


# --- the command line ------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line, by the words that call it."""
    yield from _commands_of("greenroom", typer.main.get_command(app))


def _commands_of(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, each in command.commands.items():
        if not each.hidden:
            yield from _commands_of(f"{words} {name}", each)


def _commands() -> Iterator[str]:
    yield "# The command line\n"
    yield "What each option means for a cluster is told in [operations](../operations.md#options).\n"
    for words, command in commands():
        yield f"## {words}\n"
        yield f"{_cell(inspect.cleandoc(command.help or ''))}\n"
        shown = [each for each in command.params if each.name not in _BUILT_IN_OPTIONS]
        rows = [_row(each) for each in shown if not getattr(each, "hidden", False)]
        if rows:
            yield "| | variable | without it | what |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name, variable = f"`{(parameter.metavar or parameter.name).upper()}`", ""
    else:
        name = ", ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
        variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    without = "required" if parameter.required else _default(parameter)
    return f"| {name} | {variable} | {without} | {_cell(getattr(parameter, 'help', None) or '')} |"


def _default(parameter: Any) -> str:
    shown = parameter.default
    if shown is None or shown == "" or shown == () or callable(shown) or isinstance(shown, bool):
        return ""
    return f"`{shown}`"


def _cell(text: str) -> str:
    """Return text that means in a table what it means on a terminal."""
    words = " ".join(text.split())
    for special in "\\|<>*_[]":
        words = words.replace(special, f"\\{special}")
    return words


def everything() -> list[str]:
    """Return the whole name of everything that the reference tells, commands included."""
    return [
        *(each.path for _, _, found in entries() for each in found),
        *(words for words, _ in commands()),
    ]
