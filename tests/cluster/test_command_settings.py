"""Settings made from the options of a command."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from greenroom.errors import UsageError
from greenroom_cluster.cli.settings import with_options_of
from greenroom_cluster.config import (
    AccessOptions,
    ActorOptions,
    CoordinatorProcessSettings,
    NodeOptions,
    NodeSettings,
)
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.storage import MapStorage, refuse_kept_map
from greenroom_cluster.flags import Flag
from greenroom_cluster.local_settings import LocalClusterSettings


def taken(kind: Any, *arguments: str, **variables: str) -> Any:
    """Return the settings that a command makes of these arguments."""
    found: list[Any] = []
    app = typer.Typer()
    app.command()(with_options_of(kind)(found.append))
    result = CliRunner().invoke(app, arguments, env=variables)
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize("kind", [LocalClusterSettings, CoordinatorProcessSettings])
def test_without_options_settings_are_the_defaults(kind: Any) -> None:
    assert taken(kind) == kind()


def test_options_reach_the_struct_in_which_they_lie() -> None:
    settings = taken(NodeSettings, "--name", "n1", "--memory-max", "1GiB", "--actors", "3")
    options = NodeOptions(actors=3, actor=ActorOptions(memory_max="1GiB"))
    assert settings == NodeSettings(name="n1", node=options)


def test_variables_stand_for_options_of_nested_structs() -> None:
    settings = taken(LocalClusterSettings, GREENROOM_EVICT="anonymous", GREENROOM_LOG_LEVEL="debug")
    assert settings.node.actor.evict == "anonymous"
    assert settings.process.logs.level == "debug"


class Inner(msgspec.Struct, frozen=True):
    how_many: Annotated[int, Flag(help="How many.")] = 1
    hidden: int = 2


class Outer(msgspec.Struct, frozen=True):
    inner: Inner = Inner(how_many=5)


def test_a_field_with_a_flag_is_all_that_an_option_takes() -> None:
    assert taken(Outer) == Outer()
    assert taken(Outer, "--how-many", "6") == Outer(Inner(how_many=6))
    assert taken(Outer, GREENROOM_HOW_MANY="7") == Outer(Inner(how_many=7))


def test_a_command_that_opens_a_store_gives_it_all_files_of_tls() -> None:
    """The deny list too: `restore` and `import` took it and ignored it."""
    files = {name: f"/etc/shop/{name}" for name in ("tls_cert", "tls_key", "tls_ca", "tls_deny")}
    arguments = [text for name, path in files.items() for text in (f"--{name.replace('_', '-')}", path)]
    assert taken(AccessOptions, *arguments).store_options() == files
    assert "tls_deny" not in taken(AccessOptions, *arguments[:6]).store_options()


def test_only_servers_serve_plaintext_beside_tls() -> None:
    settings = taken(NodeSettings, "--name", "n1", "--plaintext-from", "10.0.0.0/8")
    assert settings.tls.plaintext_from == "10.0.0.0/8"
    with pytest.raises(UsageError, match="--tls-cert"):
        settings.check()
    assert not hasattr(taken(AccessOptions).tls, "plaintext_from")


@pytest.mark.parametrize(
    "option", ["--new-lineage", "--adopt-from-directories", "--give-up-newer", "--adopt-from=h:1"]
)
def test_what_says_how_to_go_on_from_a_file_is_not_for_etcd(option: str) -> None:
    settings = taken(CoordinatorProcessSettings, "--store", "etcd://h:2379", option)
    with pytest.raises(UsageError, match=rf"{option.partition('=')[0]} is .*greenroom move-map"):
        settings.check()


def test_a_map_in_a_file_has_its_usual_directory() -> None:
    assert taken(CoordinatorProcessSettings).directory == Path("greenroom-data")
    assert taken(CoordinatorProcessSettings, "--data-dir", "/d").directory == Path("/d")


def test_only_a_map_of_the_cluster_keeps_a_coordinator_from_etcd(tmp_path: Path) -> None:
    refuse_kept_map(tmp_path / "none", "shop")
    with MapStorage(tmp_path) as storage:
        refuse_kept_map(tmp_path, "shop")
        storage.save(first_map("shop", 4, 2))
        refuse_kept_map(tmp_path, "other")
        with pytest.raises(UsageError, match="greenroom move-map"):
            refuse_kept_map(tmp_path, "shop")
        storage.move("etcd://h:2379")
        refuse_kept_map(tmp_path, "shop")
        storage.stay()
        with pytest.raises(UsageError, match="greenroom move-map"):
            refuse_kept_map(tmp_path, "shop")
