"""Which module may import which: the arrows between the packages, and what stays out of the pure core.

Imports are read from the syntax trees of all modules and followed transitively within the workspace. Only
what runs when a module is imported counts: what stands inside a function is imported when that is called.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "greenroom": ROOT / "store/greenroom",
    "greenroom_cluster": ROOT / "cluster/greenroom_cluster",
    "simulations": ROOT / "simulations",
    "benchmarks": ROOT / "benchmarks",
}

# What a module of the pure core may not import, directly or through others: time comes in as an argument,
# randomness as an injected random.Random, and everything else as an input.
IMPURE = {
    *("asyncio", "multiprocessing", "select", "selectors", "signal", "socket", "ssl", "subprocess"),
    *("threading", "time", "tractor", "trio"),
}
PURE = (
    "greenroom.addresses",
    "greenroom.cluster_map",
    "greenroom.dialog",
    "greenroom.errors",
    "greenroom.fanout",
    "greenroom.framing",
    "greenroom.identities",
    "greenroom.patching",
    "greenroom.private_files",
    "greenroom.routing",
    "greenroom.table",
    "greenroom.testimony",
    "greenroom.wire",
    "greenroom_cluster.certificates.examining",
    "greenroom_cluster.certificates.issuing",
    "greenroom_cluster.certificates.rotation",
    "greenroom_cluster.coordination.coordinator",
    "greenroom_cluster.coordination.draft",
    "greenroom_cluster.coordination.etcd.candidacy",
    "greenroom_cluster.coordination.etcd.layout",
    "greenroom_cluster.coordination.etcd.leadership",
    "greenroom_cluster.coordination.etcd.members",
    "greenroom_cluster.coordination.feed",
    "greenroom_cluster.coordination.genesis",
    "greenroom_cluster.coordination.inquiry",
    "greenroom_cluster.coordination.messages",
    "greenroom_cluster.coordination.rules",
    "greenroom_cluster.coordination.service",
    "greenroom_cluster.comparison",
    "greenroom_cluster.dashboard",
    "greenroom_cluster.disk.batches",
    "greenroom_cluster.disk.entries",
    "greenroom_cluster.disk.replay",
    "greenroom_cluster.keeper",
    "greenroom_cluster.links",
    "greenroom_cluster.metrics",
    "greenroom_cluster.node",
    "greenroom_cluster.planning",
    "greenroom_cluster.restarts",
    "greenroom_cluster.shard",
    "greenroom_cluster.suspect_records",
)
# The modules that start and end processes; all others reach tractor through them.
SUPERVISION = {
    "greenroom_cluster.runtime.hardening",
    "greenroom_cluster.runtime.private_sockets",
    "greenroom_cluster.runtime.socket_pairs",
    "greenroom_cluster.runtime.supervision",
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    """Yield the nodes below; those that run on import only, unless `everywhere`."""
    if not everywhere:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if is_type_checking(node):
            for child in node.orelse:
                yield from statements(child, everywhere=everywhere)
            return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from statements(child, everywhere=everywhere)


def imported(module: str, path: Path, *, everywhere: bool) -> Iterator[tuple[str, str]]:
    """Yield (module, name taken from it or "") for every import of the module."""
    for node in statements(ast.parse(path.read_text()), everywhere=everywhere):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively, which these rules do not follow"
            assert node.module is not None
            yield from ((node.module, alias.name) for alias in node.names)


@cache
def imports(module: str, *, everywhere: bool = False) -> frozenset[str]:
    """Return the modules that `module` imports, with the packages they lie in, whose __init__ runs too."""
    names = set()
    for source, name in imported(module, modules()[module], everywhere=everywhere):
        names.add(source)
        if f"{source}.{name}" in modules():
            names.add(f"{source}.{name}")
    for name in list(names):
        parts = name.split(".")
        names |= {".".join(parts[:count]) for count in range(1, len(parts))}
    return frozenset(names - {module})


def reached(module: str, short_of: frozenset[str] = frozenset()) -> dict[str, tuple[str, ...]]:
    """Return all modules that importing `module` imports, each with the way to it.

    What only the modules in `short_of` import is left out.
    """
    ways: dict[str, tuple[str, ...]] = {module: (module,)}
    waiting = [module]
    while waiting:
        here = waiting.pop(0)
        # The packages in which a module lies are imported before it.
        parent = here.rpartition(".")[0]
        for name in sorted(imports(here) | ({parent} if parent else set())):
            if name not in ways:
                ways[name] = (*ways[here], name)
                if name in modules() and name not in short_of:
                    waiting.append(name)
    return ways


def pure_modules() -> list[str]:
    return [name for name in modules() if any(within(name, each) for each in PURE)]


def test_every_pure_module_exists() -> None:
    for name in PURE:
        assert name in modules(), f"{name} has moved: change the list above"


@pytest.mark.parametrize("module", pure_modules())
def test_pure_core_reaches_no_clock_no_loop_and_no_socket(module: str) -> None:
    # Importing anything of the facade runs its __init__, which offers MemoryStore with its clock and fresh
    # session ids. That is the front door's business; the core's own imports never lead through it.
    front = frozenset({"greenroom"})
    for name, way in reached(module, short_of=front).items():
        assert name.partition(".")[0] not in IMPURE, " -> ".join(way)


@pytest.mark.parametrize("module", pure_modules())
def test_pure_core_draws_no_lots_of_its_own(module: str) -> None:
    """Of `random` only the class is used, for what is injected; other sources of chance not at all."""
    for source, name in imported(module, modules()[module], everywhere=True):
        assert source not in {"os", "secrets", "uuid"}, f"{module} imports {source}"
        assert source != "random" or name in {"", "Random"}, f"{module} imports random.{name}"
        if (source, name) == ("random", ""):
            used = {
                node.attr
                for node in ast.walk(ast.parse(modules()[module].read_text()))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
            }
            assert used == {"Random"}, f"{module} uses random.{sorted(used)}"


def test_facade_imports_no_async_library_of_others_and_never_the_cluster() -> None:
    for module in (name for name in modules() if within(name, "greenroom")):
        for name, way in reached(module).items():
            root = name.partition(".")[0]
            assert root not in {"tractor", "greenroom_cluster", "simulations"}, " -> ".join(way)
            if module not in {"greenroom.drivers.trio_", "greenroom.testing.contract.portals"}:
                assert root not in {"trio", "anyio"}, " -> ".join(way)
        for name in imports(module, everywhere=True):
            root = name.partition(".")[0]
            assert root not in {"tractor", "greenroom_cluster", "simulations"}, f"{module} imports {name}"


def test_trio_driver_is_imported_only_inside_functions() -> None:
    for module in modules():
        if within(module, "greenroom") and module != "greenroom.drivers.trio_":
            assert "greenroom.drivers.trio_" not in imports(module), module


def test_cluster_never_imports_the_simulations() -> None:
    for module in modules():
        if within(module, "greenroom_cluster"):
            assert not any(within(name, "simulations") for name in imports(module, everywhere=True)), module


def test_only_supervision_imports_tractor() -> None:
    users = {
        module
        for module in modules()
        if any(within(name, "tractor") for name in imports(module, everywhere=True))
    }
    assert users
    assert users <= SUPERVISION


def test_imports_in_functions_do_not_count_and_those_behind_if_do() -> None:
    tree = ast.parse(
        "import a\n"
        "def f():\n    import b\n"
        "if TYPE_CHECKING:\n    import c\nelse:\n    import d\n"
        "class K:\n    import e\n    def g(self):\n        import f\n"
    )
    found = [
        node.names[0].name for node in statements(tree, everywhere=False) if isinstance(node, ast.Import)
    ]
    assert found == ["a", "d", "e"]


def test_what_is_forbidden_would_be_seen() -> None:
    """An actor is impure through its links, so an empty answer about the core means something."""
    assert {"trio", "socket", "time"} <= set(reached("greenroom_cluster.runtime.actor"))


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the ways that lead from a module to itself, the shortest from each."""
    found = []
    for start in sorted(arrows):
        ways = {start: [start]}
        waiting = [start]
        while waiting:
            here = waiting.pop(0)
            for name in sorted(arrows[here]):
                if name == start:
                    found.append([*ways[here], start])
                    waiting.clear()
                    break
                if name not in ways:
                    ways[name] = [*ways[here], name]
                    waiting.append(name)
    return found


def arrows_between(package: str) -> dict[str, set[str]]:
    """Return which modules of a package import which, for types alone or inside a function too.

    That the `__init__` of a package runs first makes no arrow: it tells of what is below it.
    """
    found: dict[str, set[str]] = {}
    for name in (each for each in modules() if within(each, package)):
        found[name] = set()
        for source, taken in imported(name, modules()[name], everywhere=True):
            target = f"{source}.{taken}" if f"{source}.{taken}" in modules() else source
            if target in modules() and within(target, package) and target != name:
                found[name].add(target)
    return found


@pytest.mark.parametrize("package", ["greenroom", "greenroom_cluster", "simulations", "benchmarks"])
def test_no_module_imports_one_that_imports_it(package: str) -> None:
    """Neither when it runs nor for types alone: what stands below knows nothing of what stands above."""
    assert [" -> ".join(way) for way in circles(arrows_between(package))] == []


FLOORS = (
    *("kernel", "plans", "cluster", "checks", "workload", "faults"),
    *("runs", "stories", "mutants", "studies", "cli", "__main__"),
)
"""The rooms of `simulations`, from the ground up, as its README lists them."""


def test_rooms_of_simulations_import_only_lower_ones() -> None:
    for name, targets in arrows_between("simulations").items():
        for target in targets:
            here, there = name.split(".")[1], target.split(".")[1]
            assert FLOORS.index(there) <= FLOORS.index(here), f"{name} -> {target}"


def test_a_circle_would_be_seen() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert circles(arrows) == [["b", "c", "b"], ["c", "b", "c"]]
