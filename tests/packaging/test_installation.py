"""Both wheels, installed into fresh environments as the docs tell users of pip and of uv, and then used."""

import json
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.packaging.environments import (
    CLIENT,
    CLIENT_SAYS,
    INSTALL_SECONDS,
    ROOT,
    Environment,
    Wheels,
    build,
    clean_environment,
    cluster_up,
    fresh_environment,
    run,
    uv,
)

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def app(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment of a web app: the facade alone."""
    environment = fresh_environment(tmp_path_factory.mktemp("app"))
    environment.pip_install(wheels.facade)
    return environment


@pytest.fixture(scope="module")
def bare(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What pip makes of the cluster in one step: everything but tractor."""
    environment = fresh_environment(tmp_path_factory.mktemp("cluster"))
    environment.pip_install(wheels.facade, f"greenroom-cluster[demo] @ {wheels.cluster.as_uri()}")
    return environment


def files_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        parsed = Parser().parsestr(archive.read(name).decode())
    return {key: [str(value) for value in parsed.get_all(key, [])] for key in set(parsed.keys())}


def test_wheels_hold_their_package_types_and_licence_and_nothing_else(wheels: Wheels) -> None:
    for wheel, package, licence in (
        (wheels.facade, "greenroom", ROOT / "store/LICENSE"),
        (wheels.cluster, "greenroom_cluster", ROOT / "cluster/LICENSE"),
    ):
        files = files_of(wheel)
        assert f"{package}/py.typed" in files
        assert {name.partition("/")[0] for name in files} == {package, f"{package}-0.1.0.dist-info"}
        assert not [name for name in files if "tests" in name.split("/") or "/test_" in name]
        with zipfile.ZipFile(wheel) as archive:
            assert archive.read(f"{package}-0.1.0.dist-info/licenses/LICENSE") == licence.read_bytes()


def test_metadata_names_licence_and_requirements(wheels: Wheels) -> None:
    facade, cluster = metadata_of(wheels.facade), metadata_of(wheels.cluster)
    assert facade["License-Expression"] == ["Apache-2.0"]
    assert [entry for entry in facade["Requires-Dist"] if "extra ==" not in entry] == ["msgspec>=0.19"]
    assert facade["Requires-Python"] == [">=3.11"]
    assert cluster["License-Expression"] == ["AGPL-3.0-or-later"]
    assert cluster["Requires-Python"] == ["<3.13,>=3.11"]
    # pip refuses tractor's git address, so tractor itself comes only with the extra.
    required = [entry for entry in cluster["Requires-Dist"] if "extra ==" not in entry]
    assert not [entry for entry in required if entry.startswith("tractor")]


def test_facade_brings_msgspec_and_nothing_else(app: Environment) -> None:
    assert set(app.distributions()) - {"pip", "setuptools"} == {"greenroom", "msgspec"}
    script = "import greenroom, sys; greenroom.ClusterStore; assert not {'trio', 'anyio'} & set(sys.modules)"
    run(app.python, "-c", script)


def test_without_tractor_the_command_says_how_to_install_it(bare: Environment) -> None:
    assert "tractor" not in bare.distributions()
    # Of the demo 1 says that something was lost.
    for command, status in ((["up"], 1), (["node", "--name", "n1"], 1), (["coordinator"], 1), (["demo"], 2)):
        said = run(bare.greenroom, *command, cwd=bare.folder, status=status).stderr
        assert "pip install --no-deps tractor==0.1.0a5" in said, command
        assert '"greenroom-cluster[tractor] @ file:///' in said, command
        assert "Traceback" not in said, command


def test_installed_with_pip_it_serves_and_the_demo_loses_nothing(
    bare: Environment, app: Environment, tmp_path: Path
) -> None:
    bare.pip_install("--no-deps", "tractor==0.1.0a5")
    run(bare.python, "-W", "error::FutureWarning", "-c", "import greenroom_cluster.runtime.supervision")
    with cluster_up(bare.greenroom, tmp_path) as ready:
        assert run(app.python, "-c", CLIENT, ready["url"]).stdout == CLIENT_SAYS
        assert json.loads(
            run(bare.greenroom, "status", "--connect", ",".join(ready["seeds"]), "--json").stdout
        )["healthy"]
    done = run(bare.greenroom, "demo", "--seconds", "8", "--browsers", "6", "--json", cwd=tmp_path)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["requests"] > 0
    assert not any(result[figure] for figure in ("lost_writes", "wrong_carts", "resurrected"))
    assert "MultiError" not in done.stderr


def overrides(wheels: Wheels, folder: Path) -> Path:
    """Write the one line that the docs name, and where this build's facade lies."""
    path = folder / "overrides.txt"
    path.write_text(f"pdbpp>=0.12\ngreenroom @ {wheels.facade.as_uri()}\n")
    return path


def test_installed_as_a_tool_of_uv_it_serves(wheels: Wheels, app: Environment, tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    run(
        *(uv(), "tool", "install", f"greenroom-cluster[tractor] @ {wheels.cluster.as_uri()}"),
        *("--overrides", overrides(wheels, tmp_path)),
        cwd=tmp_path,
        env=clean_environment(UV_TOOL_DIR=str(tmp_path / "tools"), UV_TOOL_BIN_DIR=str(commands)),
        seconds=INSTALL_SECONDS,
    )
    with cluster_up(commands / "greenroom", tmp_path) as ready:
        assert run(app.python, "-c", CLIENT, ready["url"]).stdout == CLIENT_SAYS
        assert (
            "healthy" in run(commands / "greenroom", "health", "--connect", ",".join(ready["seeds"])).stdout
        )


def test_resolves_in_a_project_of_uv_that_has_the_override(wheels: Wheels, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f"""
[project]
name = "servers"
version = "0"
requires-python = ">=3.11,<3.13"
dependencies = ["greenroom-cluster[tractor] @ {wheels.cluster.as_uri()}"]

[tool.uv]
override-dependencies = ["pdbpp>=0.12", "greenroom @ {wheels.facade.as_uri()}"]
"""
    )
    run(uv(), "lock", cwd=tmp_path, seconds=INSTALL_SECONDS)
    locked = (tmp_path / "uv.lock").read_text()
    assert 'name = "tractor"' in locked
    assert "git" not in locked.partition('name = "pdbpp"')[2].partition("[[package]]")[0]
