"""Every manifest is one that Kubernetes accepts, in the namespace's own terms, and its parts fit together."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import (
    EVERY,
    KUBERNETES,
    OVERLAYS,
    ROUTES,
    VARIANTS,
    Manifest,
    containers,
    of,
    one,
    plain,
    pods,
    rendered,
    selected,
)

OLDEST = "1.30"  # the first with a preStop that sleeps without being told to
OURS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "schemas.yaml").read_text())
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
JOBS = ("export", "calibrate", "files")
STARTED = (*OVERLAYS, *VARIANTS)


def different() -> list[Manifest]:
    """The objects of all that is rendered, each once."""
    return list({json.dumps(each, sort_keys=True): each for name in EVERY for each in rendered(name)}.values())


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_object_is_as_kubernetes_schema_says(version: str) -> None:
    for each in different():
        if each["kind"] not in OURS:
            kubernetes_validate.validate(each, version, strict=True)


def test_every_object_of_a_kind_that_is_installed_is_as_our_schema_says() -> None:
    found = [each for each in different() if each["kind"] in OURS]
    assert {each["kind"] for each in found} == {*OURS}
    for each in found:
        about = OURS[each["kind"]]
        spec = {"type": "object", "additionalProperties": False}
        spec |= {key: value for key, value in about.items() if key != "apiVersion"}
        jsonschema.validate(each["spec"], spec, jsonschema.Draft202012Validator)
        assert each.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert each["apiVersion"] == about["apiVersion"]


@pytest.mark.parametrize("name", EVERY)
def test_every_object_is_in_the_namespace_and_there_once(name: str) -> None:
    objects = rendered(name)
    elsewhere = [plain(each) for each in objects if each["metadata"].get("namespace") != "sluice"]
    assert elsewhere == [plain(each) for each in of(objects, "Namespace")]
    named = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(named) == len({*named})


@pytest.mark.parametrize("name", STARTED)
def test_every_pod_is_allowed_by_the_restricted_standard(name: str) -> None:
    for pod in pods(rendered(name)).values():
        spec = pod["spec"]
        own = spec["securityContext"]
        assert own["runAsNonRoot"] is True
        assert (own["runAsUser"], own["runAsGroup"], own["fsGroup"]) == (10001, 10001, 10001)
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for each in spec["volumes"] for kind in each.keys() - {"name"}} <= VOLUMES
        for each in containers(pod):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            assert not [port for port in each.get("ports", ()) if "hostPort" in port]


def test_the_namespace_asks_for_the_restricted_standard() -> None:
    labels = one(rendered("cpu"), "Namespace", "sluice")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")} == {"restricted"}


@pytest.mark.parametrize("name", STARTED)
def test_no_pod_talks_to_kubernetes_or_gets_variables_of_other_services(name: str) -> None:
    for pod in pods(rendered(name)).values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", STARTED)
def test_every_image_has_a_full_version(name: str) -> None:
    images = {each["image"] for pod in pods(rendered(name)).values() for each in containers(pod)}
    assert images
    assert not [image for image in images if not re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-gpu)?", image)]


@pytest.mark.parametrize("name", STARTED)
def test_every_container_asks_for_cpu_and_memory_and_is_bounded_in_memory_alone(name: str) -> None:
    for pod in pods(rendered(name)).values():
        for each in containers(pod):
            resources = each["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys()
            assert "memory" in resources["limits"]
            assert "cpu" not in resources["limits"]


@pytest.mark.parametrize("name", STARTED)
def test_every_volume_is_there_is_mounted_and_is_mounted_by_a_name_that_exists(name: str) -> None:
    objects = rendered(name)
    for pod in pods(objects).values():
        mounted = {mount["name"] for each in containers(pod) for mount in each["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["spec"]["volumes"]}
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in {each["metadata"]["name"] for each in of(objects, "ConfigMap")}
            if "persistentVolumeClaim" in volume and name not in JOBS:  # a Job's are the overlay's
                one(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


def test_the_jobs_use_the_volumes_of_the_overlays() -> None:
    claims = {plain(each) for each in of(rendered("production"), "PersistentVolumeClaim")} | {"sources"}
    for job in JOBS:
        [pod] = pods(rendered(job)).values()
        used = {each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if "emptyDir" not in each}
        assert used <= claims


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_deployment_has_a_writable_folder_for_what_is_temporary_and_three_probes(name: str) -> None:
    for pod in pods(rendered(name)).values():
        [own] = pod["spec"]["containers"]
        assert {"name": "tmp", "mountPath": "/tmp"} in own["volumeMounts"]
        assert not [probe for probe in PROBES if probe not in own]


@pytest.mark.parametrize("name", STARTED)
def test_every_selector_selects_the_pods_of_one(name: str) -> None:
    objects = rendered(name)
    for each in of(objects, "Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert selected(each["spec"]["selector"], objects) == [plain(each)]
    for each in of(objects, "Service"):
        assert selected({"matchLabels": each["spec"]["selector"]}, objects) == [plain(each).removesuffix("-grpc")]
    for pod in pods(objects).values():
        for spread in pod["spec"].get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_service_leads_to_ports_that_its_pods_have(name: str) -> None:
    objects = rendered(name)
    for each in of(objects, "Service"):
        [own] = pods(objects)[each["spec"]["selector"]["app.kubernetes.io/name"]]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in own["ports"]}
        for port in each["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_services_of_grpc_show_every_pod(name: str) -> None:
    objects = rendered(name)
    headless = {plain(each) for each in of(objects, "Service") if each["spec"].get("clusterIP") == "None"}
    assert headless == {"gateway-grpc", "tensorflow-serving"}


def test_routes_lead_to_ports_of_the_gateways_service() -> None:
    ports = {port["port"] for port in one(rendered("production"), "Service", "gateway")["spec"]["ports"]}
    for routes in ROUTES:
        [route] = of(rendered(routes), "HTTPRoute")
        backends = [each for rule in route["spec"]["rules"] for each in rule["backendRefs"]]
        assert {each["name"] for each in backends} == {"gateway"}
        assert {each["port"] for each in backends} == ports


@pytest.mark.parametrize("name", [*OVERLAYS, "production-keda"])
def test_what_scales_names_a_deployment_that_sets_no_number_of_its_own(name: str) -> None:
    objects = rendered(name)
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of(objects, "HorizontalPodAutoscaler", "ScaledObject")}
    assert scaled == ({"tensorflow-serving"} if name.startswith("production") else set())
    for each in of(objects, "Deployment"):
        assert each["spec"].get("replicas") == (None if plain(each) in scaled else 1)


def admitted(objects: list[Manifest]) -> dict[str, set[tuple[str, str]]]:
    """Who may connect to the pods of each, and to which port: names of pods, or what a namespace has to be."""
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in pods(objects)}
    everyone = [*objects, *rendered("calibrate")]
    for policy in of(objects, "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for to in selected(policy["spec"]["podSelector"], objects):
            for rule in policy["spec"].get("ingress", ()):
                for peer in rule["from"]:
                    if "namespaceSelector" in peer:
                        [who] = peer["namespaceSelector"]["matchLabels"].items()
                        names = ["=".join(who)]
                    else:
                        names = selected(peer["podSelector"], everyone)
                        assert names, f"{plain(policy)}: nobody is {peer}"
                    found[to] |= {(who, port["port"]) for who in names for port in rule["ports"]}
    return found


def has(objects: list[Manifest], name: str, port: str) -> bool:
    [own] = pods(objects)[name]["spec"]["containers"]
    return port in {each["name"] for each in own["ports"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_those_connect_who_have_business_there(name: str) -> None:
    objects = rendered(name)
    expected = {
        "gateway": {
            ("sluice-edge=true", "http"), ("sluice-edge=true", "grpc"), ("evaluator", "http"), ("calibrate", "http")
        },
        "tensorflow-serving": {("gateway", "grpc")},
        "evaluator": {("gateway", "http")},
    }  # fmt: skip
    if name == "production":
        prometheus = "kubernetes.io/metadata.name=monitoring"
        expected["gateway"].add((prometheus, "http"))
        expected["tensorflow-serving"].add((prometheus, "rest"))
        expected["evaluator"].add((prometheus, "http"))
    open_ports = {
        to: {(who, port) for who, port in peers if has(objects, to, port)} for to, peers in admitted(objects).items()
    }
    assert open_ports == expected


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_policy_opens_a_port_that_nobody_behind_it_has(name: str) -> None:
    objects = rendered(name)
    for policy in of(objects, "NetworkPolicy"):
        behind = selected(policy["spec"]["podSelector"], objects)
        for port in [port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]]:
            assert [to for to in behind if has(objects, to, port)], f"{plain(policy)}: {port}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_of_the_namespace_is_closed_to_begin_with(name: str) -> None:
    closed = one(rendered(name), "NetworkPolicy", "nobody")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_every_file_is_part_of_what_is_rendered() -> None:
    """No manifest lies about that no test has looked at."""
    roots = [path.parent for path in KUBERNETES.rglob("kustomization.yaml")]
    used: set[Path] = set()
    for root in roots:
        told = yaml.safe_load((root / "kustomization.yaml").read_text())
        named = [*told.get("resources", ()), *told.get("components", ())]
        named += [each["path"] for each in told.get("patches", ()) if "path" in each]
        named += [file for each in told.get("configMapGenerator", ()) for file in each["files"]]
        used |= {(root / each).resolve() for each in named}
    rooted = {KUBERNETES / "overlays" / each for each in OVERLAYS} | {
        KUBERNETES / each for about in VARIANTS.values() for paths in about.values() for each in paths
    }
    assert not [root for root in roots if root not in used | rooted]
    files = {path for path in KUBERNETES.rglob("*") if path.is_file() and path.name != "kustomization.yaml"}
    beside = {KUBERNETES / "routes" / f"{each}.yaml" for each in ROUTES}
    beside.add(KUBERNETES / "components" / "scaling-adapter" / "adapter-rules.yaml")
    assert files - used == beside
