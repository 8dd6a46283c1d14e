"""The manifests of Kubernetes: by its schemas, strictly, and by what a cluster of Greenroom needs of them."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from greenroom_cluster.config import NodeSettings
from tests.deployment.settings import DEPLOY, taken, variables_of

KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
# The oldest that has all that is used, and the newest that the package knows.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


BASE: Mapping[tuple[str, str], Document] = {
    (each["kind"], each["metadata"]["name"]): each
    for path in sorted((KUBERNETES / "base").glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for each in documents(path)
}
NODES = BASE["StatefulSet", "greenroom-node"]
COORDINATORS = BASE["StatefulSet", "greenroom-coordinator"]


def container_of(workload: Document) -> Document:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(workload: Document) -> dict[str, str]:
    """Return a container's variables; pods are named as a StatefulSet does, with an address of their own."""
    known = {"metadata.name": f"{workload['metadata']['name']}-1", "status.podIP": "10.1.2.3"}
    known["metadata.labels['topology.kubernetes.io/zone']"] = "eu-1a"
    variables: dict[str, str] = dict(BASE["ConfigMap", "greenroom"]["data"])
    for each in container_of(workload).get("env", ()):
        value = each.get("value") or known[each["valueFrom"]["fieldRef"]["fieldPath"]]
        # $(NAME) stands for a variable above.
        variables[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], value)
    return variables


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_as_its_schema_demands(version: str) -> None:
    assert len(BASE) == 9
    for each in BASE.values():
        kubernetes_validate.validate(each, version, strict=True)


def test_a_mistake_would_be_found() -> None:
    broken = yaml.safe_load(yaml.safe_dump(NODES))
    broken["spec"]["podManagmentPolicy"] = broken["spec"].pop("podManagementPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_a_kustomization_names_what_there_is(folder: Path) -> None:
    (told,) = documents(folder / "kustomization.yaml")
    named = {(folder / each).resolve() for each in told["resources"]}
    named |= {(folder / each["path"]).resolve() for each in told.get("patches", ())}
    for path in named:
        assert path.is_file() or (path / "kustomization.yaml").is_file(), path
    files = {path.resolve() for path in folder.glob("*.yaml")} - {(folder / "kustomization.yaml").resolve()}
    assert files <= named
    for path in (folder / each["path"] for each in told.get("patches", ())):
        for each in documents(path):
            assert (each["kind"], each["metadata"]["name"]) in BASE, "a patch needs something to change"


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which builds kustomizations, is not here"
)
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_what_kustomize_makes_is_right_too(folder: Path) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    made = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built.stdout)}
    assert set(made) == set(BASE)
    for each in made.values():
        kubernetes_validate.validate(each, VERSIONS[0], strict=True)
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] == "greenroom"


@pytest.mark.parametrize("workload", [NODES, COORDINATORS], ids=lambda each: each["metadata"]["name"])
def test_options_are_those_of_the_command_line(workload: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    container = container_of(workload)
    (command,) = container["args"]
    own = {each["name"] for each in container["env"] if each["name"].startswith("GREENROOM_")}
    assert own <= variables_of(command)
    shared = set(BASE["ConfigMap", "greenroom"]["data"])
    assert shared <= variables_of("node") | variables_of("coordinator")
    variables = environment_of(workload)
    settings = taken([command], variables, monkeypatch)
    assert settings.tls.files() is not None
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert settings.listen == f"10.1.2.3:{ports['greenroom']}"
    assert variables["GREENROOM_HTTP"] == f"10.1.2.3:{ports['http']}"


def test_ports_of_actors_are_open_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = taken(["node"], environment_of(NODES), monkeypatch)
    assert isinstance(settings, NodeSettings)
    assert (settings.name, settings.zone) == ("greenroom-node-1", "eu-1a")
    first, last = settings.actor_port_base, settings.actor_port_base + settings.node.actors - 1
    inner = {each["containerPort"] for each in container_of(NODES)["ports"]}
    assert set(range(first, last + 1)) <= inner
    rules = BASE["NetworkPolicy", "greenroom-node"]["spec"]["ingress"]
    assert {"port": first, "endPort": last} in rules[0]["ports"]


def test_coordinators_are_where_nodes_look_for_them() -> None:
    replicas, name = COORDINATORS["spec"]["replicas"], COORDINATORS["metadata"]["name"]
    service = COORDINATORS["spec"]["serviceName"]
    port = container_of(COORDINATORS)["ports"][0]["containerPort"]
    told = BASE["ConfigMap", "greenroom"]["data"]["GREENROOM_COORDINATOR"].split(",")
    assert told == [f"{name}-{number}.{service}:{port}" for number in range(replicas)]


@pytest.mark.parametrize("workload", [NODES, COORDINATORS], ids=lambda each: each["metadata"]["name"])
def test_pods_start_at_once_and_are_found_before_they_are_ready(workload: Document) -> None:
    """Else a cluster that was wholly down would wait for itself."""
    assert workload["spec"]["podManagementPolicy"] == "Parallel"
    service = BASE["Service", workload["spec"]["serviceName"]]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    labels = workload["spec"]["template"]["metadata"]["labels"]
    budget = BASE["PodDisruptionBudget", workload["metadata"]["name"]]["spec"]
    policy = BASE["NetworkPolicy", workload["metadata"]["name"]]["spec"]["podSelector"]
    for selector in (
        service["selector"],
        workload["spec"]["selector"]["matchLabels"],
        budget["selector"]["matchLabels"],
        policy["matchLabels"],
    ):
        assert selector == labels
    assert budget["maxUnavailable"] == 1


def test_probes_ask_what_they_should() -> None:
    """A node is alive while it replays a log, and ready only when the cluster lacks nothing."""
    container = container_of(NODES)
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz?cluster"}
    assert container_of(COORDINATORS)["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_pages_commands_lay_out_both_secrets(tmp_path: Path) -> None:
    page = (DEPLOY.parent / "docs" / "how-to" / "kubernetes.md").read_text()
    (block,) = (each for each in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "mkdir nodes" in each)
    commands = [line.strip() for line in block.splitlines() if not line.strip().startswith("kubectl")]
    holders = {"nodes": ("node-0", "node-1", "node-2"), "coordinators": ("coordinator-0", "coordinator-1")}
    for name in ("ca", *holders["nodes"], *holders["coordinators"]):
        folder = tmp_path / f"greenroom-{name}"
        folder.mkdir()
        for file in ("ca.pem", f"greenroom-{name}.pem", f"greenroom-{name}.key"):
            (folder / file).touch()
    subprocess.run(["sh", "-euc", "\n".join(commands)], cwd=tmp_path, check=True)
    for secret, names in holders.items():
        files = {f"greenroom-{name}{kind}" for name in names for kind in (".pem", ".key")}
        assert {each.name for each in (tmp_path / secret).iterdir()} == {*files, "ca.pem", "denied.txt"}


def test_a_node_has_the_time_to_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM is the hand-over, and the second one ends a node at once: so no hook sends one before."""
    settings = taken(["node"], environment_of(NODES), monkeypatch)
    assert isinstance(settings, NodeSettings)
    grace = NODES["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.node.drain_seconds + 10
    assert "lifecycle" not in container_of(NODES)


@pytest.mark.parametrize("workload", [NODES, COORDINATORS], ids=lambda each: each["metadata"]["name"])
def test_a_pod_may_do_little(workload: Document) -> None:
    pod = workload["spec"]["template"]["spec"]
    container = container_of(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = [each["secret"] for each in pod["volumes"] if "secret" in each]
    assert [each["defaultMode"] for each in secrets] == [0o440], "what root lends to the group of the pod"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
