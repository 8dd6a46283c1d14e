"""The Compose file, by the schema of such files; what its services do, `tests/packaging` plays."""

import json
import re
from importlib import resources
from typing import Any

import jsonschema
import yaml

from tests.deployment.settings import DEPLOY, variables_of

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def schema() -> Any:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    return json.loads(vendored.read_text())


def test_it_is_as_the_schema_of_compose_files_demands() -> None:
    jsonschema.validate(COMPOSE, schema())


def test_a_mistake_would_be_found() -> None:
    broken = {**COMPOSE, "services": {**SERVICES, "etcd": {**SERVICES["etcd"], "readonly": True}}}
    assert list(jsonschema.validators.validator_for(schema())(schema()).iter_errors(broken))


def test_there_is_what_it_promises() -> None:
    commands = [service.get("command", [""])[0] for service in SERVICES.values()]
    assert (commands.count("node"), commands.count("coordinator")) == (3, 2)
    assert {"etcd", "shop", "certificates", "operator"} <= set(SERVICES)


def test_every_service_may_do_little() -> None:
    for service in SERVICES.values():
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("7400:7400", True, ["ALL"])
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "published to this machine alone"


def test_variables_are_those_of_the_commands() -> None:
    of_all = set().union(*(variables_of(each) for each in ("status", "health", "forget-node", "user")))
    for name, service in SERVICES.items():
        told = {each for each in service.get("environment", {}) if each != "GREENROOM_URL"}
        command = service.get("command", [""])[0]
        if name == "certificates":
            known = variables_of("certs init")
        elif name == "operator":
            known = of_all
        elif command in {"node", "coordinator"}:
            known = variables_of(command)
        else:
            known = set()
        assert told <= known, name


def test_all_that_is_named_is_there() -> None:
    for service in SERVICES.values():
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_commands_that_are_shown_name_the_profile_of_their_service() -> None:
    """Podman-compose finds no such service otherwise; see findings/podman_compose_profile.sh."""
    shown = [DEPLOY / "compose.yaml", *(DEPLOY.parent / "docs").rglob("*.md"), DEPLOY.parent / "README.md"]
    runs = [
        line
        for path in shown
        for line in path.read_text().splitlines()
        if re.search(r"compose .*\brun\b", line)
    ]
    assert len(runs) >= 3
    for line in runs:
        named = {name for name in SERVICES if re.search(rf"\b{name}\b", line.partition(" run ")[2])}
        for name in named:
            for profile in SERVICES[name].get("profiles", ()):
                assert f"--profile {profile} " in line, line
