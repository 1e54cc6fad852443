"""The overlays that deploy/README.md tells an operator to write render as they are written there."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, config, containers, kustomized, of, one, pods
from tests.docs.pages import ROOT, blocks

OWN, EXPORT = (block.text for block in blocks("deploy/README.md") if block.language == "yaml")


@pytest.fixture
def my(tmp_path: Path) -> Path:
    """The folder that the page makes, with a model of the operator's own."""
    folder = tmp_path.resolve() / "my"
    folder.mkdir()
    for name in ("overlays/production/settings.yaml", "base/models.config"):
        text = (KUBERNETES / name).read_text().replace("temperature", "weather")
        (folder / Path(name).name).write_text(text)
    return folder


def write(folder: Path, text: str, deploy: str) -> None:
    """The page's kustomization.yaml, which finds the repository from here."""
    (folder / "kustomization.yaml").write_text(text.replace(deploy, os.path.relpath(ROOT / "deploy", folder)))


def images(objects: list[dict[str, Any]]) -> set[str]:
    return {each["image"].partition(":")[0] for pod in pods(objects).values() for each in containers(pod)}


def test_the_production_overlay_has_the_operators_model_images_storage_and_gpu(my: Path) -> None:
    write(my, OWN, "../deploy")
    objects = kustomized(my)
    assert yaml.safe_load(config(objects, "gateway-settings")["settings.yaml"])["required_models"] == ["weather"]
    assert 'base_path: "/models/weather"' in config(objects, "tensorflow-serving-models")["models.config"]
    assert images(objects) == {"REGISTRY/sluice-gateway", "REGISTRY/sluice-evaluator", "tensorflow/serving"}
    classes = {
        each["metadata"]["name"]: each["spec"].get("storageClassName") for each in of(objects, "PersistentVolumeClaim")
    }
    shared = "YOUR_READ_WRITE_MANY_CLASS"
    assert classes == {"models": shared, "calibrations": shared, "evaluations": None}
    serving = one(objects, "Deployment", "tensorflow-serving")["spec"]["template"]["spec"]
    assert serving["nodeSelector"] == {"nvidia.com/gpu.product": "YOUR_GPU"}


def test_the_export_exports_the_operators_model_with_an_image_of_the_operators_registry(my: Path) -> None:
    write(my, EXPORT, "../../deploy")
    objects = kustomized(my)
    assert images(objects) == {"REGISTRY/sluice-export"}
    [own] = [each for pod in pods(objects).values() for each in containers(pod)]
    assert own["args"] == ["/sources/weather.keras", "--out", "/models/weather/2"]
