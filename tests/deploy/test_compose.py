"""Docker compose accepts the file, and its services have the ports, settings, flags and files of the code."""

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from sluice.evaluator.settings import PREFIX as EVALUATOR_PREFIX
from sluice.evaluator.settings import Settings as EvaluatorSettings
from sluice.gateway.settings import PREFIX, Settings
from sluice.model_server import flags
from sluice.wire.messages.tfs.v1 import config_pb2
from tests.deploy.test_images import DOCKERFILE, IMAGES, said
from tests.docs.pages import ROOT, text_of

FOLDER = ROOT / "deploy" / "compose"
END_S = 5  # for last answers and Python's end
LOOK = re.compile(r"urlopen\('http://127\.0\.0\.1:(\d+)/healthz', timeout=5\)")


@cache
def compose(*profiles: str) -> Any:
    """The file as docker compose reads it."""
    command = [Path(sys.executable).with_name("docker-compose"), "--file", FOLDER / "compose.yaml"]
    command += [part for profile in profiles for part in ("--profile", profile)]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [*command, "config", "--format", "json"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose("*")["services"]
    return found


def names() -> list[str]:
    return [*yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]]


def mounts(name: str) -> dict[str, dict[str, Any]]:
    return {each["target"]: each for each in services()[name].get("volumes", [])}


@cache
def gateway_settings() -> Settings:
    variables = dict(services()["gateway"]["environment"])
    file = Path(mounts("gateway")[variables.pop("SLUICE_CONFIG")]["source"])
    given = yaml.safe_load(file.read_text())
    return Settings(**given, **{name.removeprefix(PREFIX).lower(): value for name, value in variables.items()})


@cache
def evaluator_settings() -> EvaluatorSettings:
    variables = services()["evaluator"]["environment"]
    return EvaluatorSettings(
        **{name.removeprefix(EVALUATOR_PREFIX).lower(): value for name, value in variables.items()}
    )


def networks(name: str) -> set[str]:
    return {*services()[name]["networks"]}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_has_one_model_server_which_the_gateway_finds_by_its_name(profile: str) -> None:
    assert gateway_settings().backend == "tensorflow-serving:8500"
    found = compose(profile)["services"]
    [serving] = [each for name, each in found.items() if name.startswith("tensorflow-serving")]
    assert serving["networks"] == {"models": {"aliases": ["tensorflow-serving"]}}
    assert ("gpu" in serving["image"]) == ("deploy" in serving) == (profile == "gpu")
    assert "export" not in found


@pytest.mark.parametrize("name", names())
def test_a_service_has_no_rights_and_writes_to_its_volumes_alone(name: str) -> None:
    service = services()[name]
    user, _, _ = service["user"].partition(":")
    assert int(user) > 0
    if name not in ("prometheus", "grafana"):
        assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/tmp"]
    assert not {"privileged", "network_mode", "pid", "cap_add"} & {key for key, value in service.items() if value}


@pytest.mark.parametrize("name", names())
def test_an_image_has_a_full_version_and_ours_has_this_one(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-gpu)?", service["image"])
    if name in IMAGES:
        version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
        assert service["image"] == f"sluice-{name}:{version}"
        assert service["build"] == {"context": str(ROOT), "dockerfile": DOCKERFILE, "target": name}
    else:
        assert "build" not in service


@pytest.mark.parametrize("name", names())
def test_what_is_mounted_is_there_and_read_only_where_nothing_is_written(name: str) -> None:
    written = {
        "/evaluations", "/prometheus", "/var/lib/grafana", *(["/models", "/calibrations"] if name == "export" else [])
    }  # fmt: skip
    for target, mount in mounts(name).items():
        assert mount.get("read_only", False) == (target not in written), target
        if mount["type"] == "bind" and "var" not in Path(mount["source"]).relative_to(ROOT).parts:
            assert Path(mount["source"]).exists(), mount["source"]


def test_only_this_machine_reaches_the_edge_and_the_pages_of_prometheus_and_grafana() -> None:
    published = {
        name: [(port["host_ip"], int(port["published"]), port["target"]) for port in service["ports"]]
        for name, service in services().items() if "ports" in service
    }  # fmt: skip
    assert published == {
        "edge": [("127.0.0.1", 8000, 8000), ("127.0.0.1", 8001, 8001)],
        "prometheus": [("127.0.0.1", 9090, 9090)],
        "grafana": [("127.0.0.1", 3000, 3000)],
    }


def test_who_talks_to_whom_shares_a_network_and_nobody_else_does() -> None:
    together = {
        frozenset((one, other)) for one in services() for other in services()
        if one != other and networks(one) & networks(other)
    }  # fmt: skip
    allowed = [
        ("edge", "gateway"), ("gateway", "tensorflow-serving"), ("gateway", "tensorflow-serving-gpu"),
        ("gateway", "evaluator"), ("prometheus", "gateway"), ("prometheus", "evaluator"), ("export", "gateway"),
        ("prometheus", "tensorflow-serving"), ("prometheus", "tensorflow-serving-gpu"), ("prometheus", "grafana"),
    ]  # fmt: skip
    beside = [("tensorflow-serving", "tensorflow-serving-gpu"), ("edge", "export")]  # never run together; a job
    assert together == {*map(frozenset, allowed + beside)}
    internal = {name for name, network in compose("*")["networks"].items() if network.get("internal")}
    assert networks("evaluator") | networks("tensorflow-serving") == internal


def test_gateway_and_evaluator_listen_where_their_images_say_and_ask_each_other() -> None:
    settings, evaluator = gateway_settings(), evaluator_settings()
    exposed = said("gateway", "EXPOSE")[0].split()
    assert [settings.http, settings.grpc] == [f"0.0.0.0:{port}" for port in exposed]
    assert evaluator.http == f"0.0.0.0:{said('evaluator', 'EXPOSE')[0]}"
    assert settings.evaluator == f"evaluator:{said('evaluator', 'EXPOSE')[0]}"
    assert evaluator.gateway == f"http://gateway:{exposed[0]}"


@pytest.mark.parametrize("name", ["gateway", "evaluator"])
def test_whether_one_is_alive_is_asked_where_it_listens(name: str) -> None:
    command, python, _, code = services()[name]["healthcheck"]["test"]
    asked = LOOK.search(code)
    assert asked
    assert (command, python, asked[1]) == ("CMD", "python", said(name, "EXPOSE")[0].split()[0])


def test_what_is_kept_is_on_volumes_for_which_the_images_have_folders_of_their_own() -> None:
    """A new volume gets the folder's owner; without a folder it would be root's."""
    settings, evaluator = gateway_settings(), evaluator_settings()
    assert mounts("gateway")[str(settings.calibrations)]["type"] == "volume"
    kept = {Path(evaluator.database.removeprefix("sqlite:///")).parent, evaluator.uploads.parent}
    assert kept == {Path("/evaluations")}
    assert mounts("evaluator")["/evaluations"]["type"] == "volume"
    for name in IMAGES:
        made = said(name, "RUN")[-1].split()
        for target, mount in mounts(name).items():
            assert mount["type"] != "volume" or target in made


def test_there_is_time_to_drain_before_a_gateway_is_killed() -> None:
    assert seconds(services()["gateway"]["stop_grace_period"]) > gateway_settings().drain_s + END_S


@pytest.mark.parametrize("name", ["tensorflow-serving", "tensorflow-serving-gpu"])
def test_tensorflow_serving_has_flags_that_there_are_serves_what_is_required_and_does_not_batch(name: str) -> None:
    told = flags.load(services()[name]["command"])
    assert (told.port, told.rest_api_port, told.enable_batching) == (8500, 8501, False)
    models, monitored = (
        Path(mounts(name)[str(file)]["source"]).read_text()
        for file in (told.model_config_file, told.monitoring_config_file)
    )
    served = dict(re.findall(r'name: "(.+)"\n\s+base_path: "(.+)"', models))
    assert len(served) == models.count("config {")
    assert served == {name: f"/models/{name}" for name in gateway_settings().required_models}
    assert "/models" in mounts(name)
    monitoring = text_format.Parse(monitored, config_pb2.MonitoringConfig())
    assert monitoring.prometheus_config.enable


def test_prometheus_asks_services_that_there_are_on_networks_that_it_shares() -> None:
    file = Path(mounts("prometheus")["/etc/prometheus"]["source"]) / "prometheus.yaml"
    assert f"--config.file=/etc/prometheus/{file.name}" in services()["prometheus"]["command"]
    targets = [
        target for job in yaml.safe_load(file.read_text())["scrape_configs"]
        for each in job["static_configs"] for target in each["targets"]
    ]  # fmt: skip
    assert {*targets} == {"gateway:8080", "evaluator:8090", "tensorflow-serving:8501"}
    assert all(networks(target.partition(":")[0]) & networks("prometheus") for target in targets)


def test_grafana_finds_the_dashboard_where_its_provisioning_looks() -> None:
    provisioning = Path(mounts("grafana")["/etc/grafana/provisioning"]["source"])
    [file] = (provisioning / "dashboards").glob("*.yaml")
    [provider] = yaml.safe_load(file.read_text())["providers"]
    assert f"{provider['options']['path']}/dashboard.json" in mounts("grafana")
