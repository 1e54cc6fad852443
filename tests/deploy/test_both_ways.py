"""Compose and Kubernetes run the same programs in the same way."""

from typing import Any

import pytest
import yaml

from tests.deploy.manifests import container, environment, rendered
from tests.docs.pages import ROOT

COMPOSE = ROOT / "deploy" / "compose"
pytestmark = pytest.mark.skipif(not (COMPOSE / "compose.yaml").exists(), reason="there is no deploy/compose")
# In Kubernetes, where pods come and go, gateways connect again from time to time.
MORE = {"--grpc_channel_arguments=grpc.max_connection_age_ms=30000"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    return found


@pytest.mark.parametrize("name", ["gateway", "evaluator"])
def test_a_program_is_the_same_image_with_the_same_variables(services: dict[str, Any], name: str) -> None:
    assert services[name]["image"] == container(rendered("gpu"), name)["image"]
    assert services[name]["environment"] == environment(rendered("gpu"), name)


@pytest.mark.parametrize(("service", "overlay"), [("tensorflow-serving", "base"), ("tensorflow-serving-gpu", "gpu")])
def test_tensorflow_serving_has_the_same_image_and_flags(services: dict[str, Any], service: str, overlay: str) -> None:
    own = container(rendered(overlay), "tensorflow-serving")
    assert services[service]["image"] == own["image"]
    assert [*services[service]["entrypoint"]] == own["command"]
    assert {*own["args"]} - {*services[service]["command"]} == MORE
    assert {*services[service]["command"]} <= {*own["args"]}


@pytest.mark.parametrize("job", ["export", "calibrate"])
def test_jobs_have_the_image_that_compose_has(services: dict[str, Any], job: str) -> None:
    assert services["export"]["image"] == container(rendered(job), job)["image"]
