"""Settings, ports, paths, flags and metrics in the manifests are those that the code has."""

import re
from functools import cache
from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from sluice.evaluator.http import operation as evaluator_operation
from sluice.evaluator.settings import PREFIX as EVALUATOR_PREFIX
from sluice.evaluator.settings import Settings as EvaluatorSettings
from sluice.gateway.http import operation
from sluice.gateway.settings import Settings
from sluice.model_server import flags
from sluice.wire.messages.tfs.v1 import config_pb2
from tests.deploy.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROUTES,
    Manifest,
    config,
    container,
    containers,
    environment,
    of,
    one,
    plain,
    pods,
    port_of,
    rendered,
)
from tests.docs.pages import ROOT, text_of

PREFIX = "SLUICE_"
LAST_WORDS_S = 2  # of gateway and evaluator, once everything has been settled
PYTHON_S = 3  # for the interpreter to end


@cache
def gateway_settings(name: str) -> Settings:
    objects = rendered(name)
    given = yaml.safe_load(config(objects, "gateway-settings")["settings.yaml"])
    variables = environment(objects, "gateway")
    config_file = variables.pop("SLUICE_CONFIG")
    assert config_file == f"{mounts(objects, 'gateway')['settings']}/settings.yaml"
    assert all(variable.startswith(PREFIX) for variable in variables)
    return Settings(**given, **{key.removeprefix(PREFIX).lower(): value for key, value in variables.items()})


@cache
def evaluator_settings(name: str) -> EvaluatorSettings:
    variables = environment(rendered(name), "evaluator")
    given = {key.removeprefix(EVALUATOR_PREFIX).lower(): value for key, value in variables.items()}
    return EvaluatorSettings(**given)


@cache
def serving_flags(name: str) -> Any:
    """TensorFlow Serving's flags, as the embedded model server takes them, which refuses those that do not exist."""
    return flags.load(container(rendered(name), "tensorflow-serving")["args"])


def mounts(objects: list[Manifest], name: str) -> dict[str, str]:
    return {each["name"]: each["mountPath"] for each in container(objects, name)["volumeMounts"]}


def service_ports(objects: list[Manifest], name: str) -> set[int]:
    return {each["port"] for each in one(objects, "Service", name)["spec"]["ports"]}


def reached(objects: list[Manifest], address: str) -> bool:
    """Whether an address is that of a Service and one of its ports."""
    host, _, port = address.partition(":")
    return int(port) in service_ports(objects, host)


def paths(router: Any) -> set[str]:
    return {route.path for route in router.routes}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_gateway_listens_where_its_ports_are_and_asks_services_that_there_are(name: str) -> None:
    objects, settings = rendered(name), gateway_settings(name)
    assert settings.http == f"0.0.0.0:{port_of(objects, 'gateway', 'http')}"
    assert settings.grpc == f"0.0.0.0:{port_of(objects, 'gateway', 'grpc')}"
    assert settings.backend == "tensorflow-serving:8500"
    assert settings.evaluator is not None
    assert reached(objects, settings.backend)
    assert reached(objects, settings.evaluator)
    assert str(settings.calibrations) == mounts(objects, "gateway")["calibrations"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_evaluator_listens_where_its_port_is_and_keeps_things_on_its_volume(name: str) -> None:
    objects, settings = rendered(name), evaluator_settings(name)
    assert settings.http == f"0.0.0.0:{port_of(objects, 'evaluator', 'http')}"
    assert settings.gateway == f"http://gateway:{port_of(objects, 'gateway', 'http')}"
    kept = mounts(objects, "evaluator")["evaluations"]
    assert str(settings.uploads).startswith(f"{kept}/")
    if name == "production":
        sources = {each["name"]: each.get("valueFrom") for each in container(objects, "evaluator")["env"]}
        assert sources[f"{EVALUATOR_PREFIX}DATABASE"] == {"secretKeyRef": {"name": "evaluator-database", "key": "url"}}
    else:
        assert settings.database.startswith(f"sqlite:///{kept}/")


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_is_a_setting(name: str) -> None:
    objects = rendered(name)
    for pod, prefix, settings in (
        ("gateway", PREFIX, Settings), ("evaluator", EVALUATOR_PREFIX, EvaluatorSettings)
    ):  # fmt: skip
        known = {f"{prefix}{field.upper()}" for field in settings.model_fields}
        assert {each["name"] for each in container(objects, pod)["env"]} <= known


@pytest.mark.parametrize("name", OVERLAYS)
def test_tensorflow_serving_has_flags_that_there_are_and_does_not_batch(name: str) -> None:
    objects, told = rendered(name), serving_flags(name)
    assert (told.port, told.rest_api_port) == tuple(
        port_of(objects, "tensorflow-serving", port) for port in ("grpc", "rest")
    )
    assert "--enable_grpc_healthcheck_service=true" in container(objects, "tensorflow-serving")["args"]
    assert not told.enable_batching
    folder, files = mounts(objects, "tensorflow-serving")["configuration"], config(objects, "tensorflow-serving-models")
    assert {str(told.model_config_file), str(told.monitoring_config_file)} == {f"{folder}/{file}" for file in files}


@pytest.mark.parametrize("name", OVERLAYS)
def test_required_models_are_among_those_that_are_served_from_the_volume(name: str) -> None:
    objects = rendered(name)
    told = config(objects, "tensorflow-serving-models")["models.config"]
    served = dict(re.findall(r'name: "(.+)"\n\s+base_path: "(.+)"', told))
    assert len(served) == told.count("config {")
    assert {*gateway_settings(name).required_models} <= served.keys()
    folder = mounts(objects, "tensorflow-serving")["models"]
    assert served == {model: f"{folder}/{model}" for model in served}


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ask_paths_and_ports_that_there_are(name: str) -> None:
    objects = rendered(name)
    for pod, router in (("gateway", operation.router), ("evaluator", evaluator_operation.router)):
        own = container(objects, pod)
        asked = [own[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert asked == [{"path": path, "port": "http"} for path in ("/healthz", "/healthz", "/readyz")]
        assert {each["path"] for each in asked} <= paths(router)
    serving = container(objects, "tensorflow-serving")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert serving[probe]["grpc"] == {"port": port_of(objects, "tensorflow-serving", "grpc")}


def test_prometheus_asks_the_same_jobs_with_its_operator_and_without() -> None:
    """The operator calls a job NAMESPACE/NAME, which rules and dashboard go by."""
    objects = rendered("production")
    told = yaml.safe_load(text_of("deploy/prometheus/prometheus.yaml"))["scrape_configs"]
    configured = {
        each["job_name"]: (each.get("metrics_path", "/metrics"), each["static_configs"][0]["targets"]) for each in told
    }
    monitored = {}
    for monitor in of(objects, "PodMonitor"):
        [endpoint], name = monitor["spec"]["podMetricsEndpoints"], plain(monitor)
        port = port_of(objects, name, endpoint["port"])
        monitored[f"{monitor['metadata']['namespace']}/{name}"] = (endpoint["path"], [f"{name}:{port}"])
    assert configured == monitored


def test_prometheus_asks_paths_and_ports_that_there_are() -> None:
    objects = rendered("production")
    monitoring = text_format.Parse(
        config(objects, "tensorflow-serving-models")["monitoring.config"], config_pb2.MonitoringConfig()
    )
    assert monitoring.prometheus_config.enable
    expected = {
        "gateway": ("http", "/metrics"),
        "evaluator": ("http", "/metrics"),
        "tensorflow-serving": ("rest", monitoring.prometheus_config.path),
    }
    for monitor in of(objects, "PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == expected[plain(monitor)]
        port_of(objects, plain(monitor), endpoint["port"])
    assert expected.keys() == {plain(monitor) for monitor in of(objects, "PodMonitor")}
    assert "/metrics" in paths(operation.router)
    assert "/metrics" in paths(evaluator_operation.router)


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_time_to_drain_before_a_gateway_is_killed(name: str) -> None:
    spec = pods(rendered(name))["gateway"]["spec"]
    waits = container(rendered(name), "gateway")["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = gateway_settings(name).drain_s
    assert spec["terminationGracePeriodSeconds"] > waits + drain_s + LAST_WORDS_S + PYTHON_S


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_evaluator_has_time_to_end(name: str) -> None:
    spec = pods(rendered(name))["evaluator"]["spec"]
    waits = container(rendered(name), "evaluator")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > waits + LAST_WORDS_S + PYTHON_S


@pytest.mark.parametrize("name", OVERLAYS)
def test_gateways_have_left_a_model_server_before_it_ends(name: str) -> None:
    """A connection's age varies by a tenth, and gRPC looks a name up no more often than every half minute."""
    spec = pods(rendered(name))["tensorflow-serving"]["spec"]
    own = container(rendered(name), "tensorflow-serving")
    [age_ms] = re.findall(r"grpc\.max_connection_age_ms=(\d+)", " ".join(own["args"]))
    waits = own["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert waits > 1.1 * int(age_ms) / 1000 + 30
    assert spec["terminationGracePeriodSeconds"] > waits


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_rollout_waits_longer_than_a_pod_may_take_to_start(name: str) -> None:
    for each in of(rendered(name), "Deployment"):
        probe = container(rendered(name), plain(each))["startupProbe"]
        assert each["spec"].get("progressDeadlineSeconds", 600) > probe["periodSeconds"] * probe["failureThreshold"]


def test_our_images_are_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)
    assert version
    for name in (*OVERLAYS, "export", "calibrate"):
        images = {each["image"] for pod in pods(rendered(name)).values() for each in containers(pod)}
        ours = {image for image in images if image.startswith("sluice-")}
        assert ours
        assert {image.partition(":")[2] for image in ours} == {version[1]}


def test_jobs_run_commands_that_there_are() -> None:
    from typer.main import get_command

    from sluice.cli.main import app

    for name in ("export", "calibrate"):
        own = container(rendered(name), name)
        program, command = own["command"]
        assert program == "sluice"
        found = get_command(app).commands[command]  # type: ignore[attr-defined]
        given = found.make_context(command, [*own["args"]], resilient_parsing=False)
        folders = set(mounts(rendered(name), name).values())
        for value in given.params.values():
            if str(value).startswith("/"):
                assert f"/{str(value).split('/')[1]}" in folders


def test_the_calibration_asks_the_gateway_and_writes_where_it_reads() -> None:
    args = container(rendered("calibrate"), "calibrate")["args"]
    assert args[args.index("--url") + 1] == f"http://gateway:{port_of(rendered('cpu'), 'gateway', 'http')}"
    assert args[args.index("--calibrations") + 1] == mounts(rendered("cpu"), "gateway")["calibrations"]
    claims = [
        next(each["persistentVolumeClaim"] for each in pod["spec"]["volumes"] if each["name"] == "calibrations")
        for pod in (pods(rendered("calibrate"))["calibrate"], pods(rendered("cpu"))["gateway"])
    ]
    assert claims[0] == claims[1]


def adapter_rules() -> list[dict[str, Any]]:
    rules = yaml.safe_load((KUBERNETES / "components" / "scaling-adapter" / "adapter-rules.yaml").read_text())
    found: list[dict[str, Any]] = rules["externalRules"]
    return found


def queries() -> list[str]:
    """What Prometheus is asked by autoscalers, as it gets it."""
    [keda] = of(rendered("production-keda"), "ScaledObject")
    asked = [each["metadata"]["query"] for each in keda["spec"]["triggers"]]
    for rule in adapter_rules():
        series, _, about = rule["seriesQuery"].partition("{")
        told = rule["metricsQuery"].replace("<<.Series>>", series)
        asked += [told.replace("<<.LabelMatchers>>", 'namespace="sluice"'), f"{series}{{{about}"]
    return asked


def test_autoscalers_ask_for_metrics_that_there_are() -> None:
    named = {name for query in queries() for name in re.findall(r"\bsluice_\w+", query)}
    assert named == {"sluice_queue_rows", "sluice_queue_wait_seconds_bucket"}
    assert not [name for name in named if f"| `{name.removesuffix('_bucket')}` |" not in text_of("docs/metrics.md")]


def test_both_ways_to_scale_ask_the_same() -> None:
    queue, _, wait, _ = (" ".join(each.split()) for each in queries()[2:])
    assert [" ".join(each.split()) for each in queries()[:2]] == [queue, wait]


def test_the_adapter_offers_what_the_autoscaler_asks_for() -> None:
    [autoscaler] = of(rendered("production"), "HorizontalPodAutoscaler")
    asked = [each["external"]["metric"]["name"] for each in autoscaler["spec"]["metrics"]]
    assert asked == [rule["name"]["as"] for rule in adapter_rules()]


def test_routes_go_by_the_header_that_names_a_session() -> None:
    [policy] = of(rendered("envoy-gateway"), "BackendTrafficPolicy")
    [rule] = of(rendered("istio"), "DestinationRule")
    headers = {
        policy["spec"]["loadBalancer"]["consistentHash"]["header"]["name"],
        rule["spec"]["trafficPolicy"]["loadBalancer"]["consistentHash"]["httpHeaderName"],
    }
    assert headers == {"Sluice-Session"}
    assert "`Sluice-Session`" in text_of("docs/sessions.md")
    assert rule["spec"]["host"] == "gateway.sluice.svc.cluster.local"
    for name in ROUTES:
        [gateway], [route] = of(rendered(name), "Gateway"), of(rendered(name), "HTTPRoute")
        assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
    assert policy["spec"]["targetRefs"][0]["name"] == of(rendered("envoy-gateway"), "HTTPRoute")[0]["metadata"]["name"]


def test_everything_that_can_be_applied_is_on_the_page() -> None:
    page = text_of("deploy/README.md")
    folders = [path.parent for path in KUBERNETES.rglob("kustomization.yaml")]
    files = [KUBERNETES / "routes" / f"{name}.yaml" for name in ROUTES]
    named = [path.relative_to(KUBERNETES) for path in [*folders, *files] if path.name != "sources"]
    assert not [str(path) for path in named if f"{path}" not in page]
    assert ROOT.joinpath("deploy/kubernetes") == KUBERNETES
