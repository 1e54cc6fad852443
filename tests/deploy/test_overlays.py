"""Each overlay changes what it says it changes, and nothing else; what two places must agree on is equal."""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.manifests import Manifest, config, of, one, plain, rendered
from tests.docs.pages import ROOT

ABSENT = "absent"
SERVING = "Deployment/tensorflow-serving"
OWN = f"{SERVING}/spec/template/spec/containers/tensorflow-serving"
GATEWAY = "Deployment/gateway/spec/template/spec"


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value by its path; members of a list go by their name, if they have one."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            name = each.get("name", place) if isinstance(each, dict) else place
            yield from leaves(each, f"{path}/{name}")
    else:
        yield path, value


def flat(objects: list[Manifest]) -> dict[str, Any]:
    """All values of all objects, without the hashes of ConfigMaps; settings one by one."""
    found: dict[str, Any] = {}
    for each in objects:
        path = f"{each['kind']}/{plain(each)}"
        if each["kind"] == "ConfigMap":
            for file, text in each["data"].items():
                found |= dict(leaves(yaml.safe_load(text) if file.endswith(".yaml") else text, f"{path}/{file}"))
        else:
            found |= {
                at: value for at, value in leaves(each, path) if not at.endswith(("/configMap/name", "/metadata/name"))
            }
    return found


def changes(before: str, after: str) -> dict[str, tuple[Any, Any]]:
    """What differs in objects that both have, as (before, after)."""
    old, new = flat(rendered(before)), flat(rendered(after))
    both = kinds(before) & kinds(after)
    return {
        path: (old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys())
        if "/".join(path.split("/")[:2]) in both and old.get(path, ABSENT) != new.get(path, ABSENT)
    }


def kinds(name: str) -> set[str]:
    return {f"{each['kind']}/{plain(each)}" for each in rendered(name)}


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(config(rendered(name), "gateway-settings")["settings.yaml"])
    return found


def test_cpu_asks_for_cores_and_starts_as_many_threads_and_mounts_on_one_node() -> None:
    assert changes("base", "cpu") == {
        f"{OWN}/resources/requests/cpu": ("2", "4"),
        f"{OWN}/args/6": (ABSENT, "--tensorflow_intra_op_parallelism=4"),
        f"{OWN}/args/7": (ABSENT, "--tensorflow_inter_op_parallelism=4"),
        "PersistentVolumeClaim/models/spec/accessModes/0": ("ReadWriteMany", "ReadWriteOnce"),
        "PersistentVolumeClaim/calibrations/spec/accessModes/0": ("ReadWriteMany", "ReadWriteOnce"),
    }
    assert kinds("cpu") == kinds("base")


def test_gpu_asks_for_one_and_its_image_and_makes_room_for_it_first() -> None:
    assert changes("base", "gpu") == {
        f"{OWN}/image": ("tensorflow/serving:2.20.0", "tensorflow/serving:2.20.0-gpu"),
        f"{OWN}/resources/limits/nvidia.com/gpu": (ABSENT, 1),
        f"{OWN}/resources/limits/memory": ("8Gi", "16Gi"),
        f"{OWN}/resources/requests/memory": ("4Gi", "8Gi"),
        f"{SERVING}/spec/strategy/rollingUpdate/maxSurge": (1, 0),
        f"{SERVING}/spec/strategy/rollingUpdate/maxUnavailable": (0, 1),
        f"{SERVING}/spec/template/spec/tolerations/0/key": (ABSENT, "nvidia.com/gpu"),
        f"{SERVING}/spec/template/spec/tolerations/0/operator": (ABSENT, "Exists"),
        f"{SERVING}/spec/template/spec/tolerations/0/effect": (ABSENT, "NoSchedule"),
        **{
            f"ConfigMap/gateway-settings/settings.yaml/allowed_batch_sizes/{place}": (ABSENT, size)
            for place, size in enumerate([1, 8, 32, 128])
        },
    }
    assert kinds("gpu") == kinds("base")


def test_production_drains_longer_spreads_and_scales_and_evaluates_in_a_database() -> None:
    database = "Deployment/evaluator/spec/template/spec/containers/evaluator/env/SLUICE_EVALUATOR_DATABASE"
    spread = f"{SERVING}/spec/template/spec/topologySpreadConstraints/0"
    assert changes("gpu", "production") == {
        f"{SERVING}/spec/replicas": (1, ABSENT),
        f"{spread}/maxSkew": (ABSENT, 1),
        f"{spread}/topologyKey": (ABSENT, "kubernetes.io/hostname"),
        f"{spread}/whenUnsatisfiable": (ABSENT, "ScheduleAnyway"),
        f"{spread}/labelSelector/matchLabels/app.kubernetes.io/name": (ABSENT, "tensorflow-serving"),
        f"{GATEWAY}/terminationGracePeriodSeconds": (30, 90),
        f"{GATEWAY}/containers/gateway/lifecycle/preStop/sleep/seconds": (5, 15),
        f"{GATEWAY}/containers/gateway/resources/requests/cpu": ("1", "2"),
        f"{GATEWAY}/containers/gateway/resources/requests/memory": ("512Mi", "2Gi"),
        f"{GATEWAY}/containers/gateway/resources/limits/memory": ("2Gi", "4Gi"),
        f"{database}/value": ("sqlite:////evaluations/evaluations.db", ABSENT),
        f"{database}/valueFrom/secretKeyRef/name": (ABSENT, "evaluator-database"),
        f"{database}/valueFrom/secretKeyRef/key": (ABSENT, "url"),
        "ConfigMap/gateway-settings/settings.yaml/drain_s": (10, 60),
        "ConfigMap/gateway-settings/settings.yaml/in_flight": (ABSENT, 8),
    }
    assert kinds("production") - kinds("gpu") >= {
        "HorizontalPodAutoscaler/tensorflow-serving", "NetworkPolicy/prometheus", "PodMonitor/evaluator",
        "PodMonitor/gateway", "PodMonitor/tensorflow-serving", "PrometheusRule/sluice",
    }  # fmt: skip


def test_the_object_store_takes_the_place_of_the_volume() -> None:
    assert kinds("gpu") - kinds("object-store") == {"PersistentVolumeClaim/models"}
    [changed] = {path.split("/")[1] for path in changes("gpu", "object-store")}
    assert changed == "tensorflow-serving"
    spec = one(rendered("object-store"), "Deployment", "tensorflow-serving")["spec"]["template"]["spec"]
    assert {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}} in spec["volumes"]
    [copies] = spec["initContainers"]
    assert {"name": "models", "mountPath": "/models"} in copies["volumeMounts"]


def test_both_ways_to_scale_do_the_same() -> None:
    assert kinds("production") ^ kinds("production-keda") == {
        "HorizontalPodAutoscaler/tensorflow-serving", "ScaledObject/tensorflow-serving"
    }  # fmt: skip
    [autoscaler] = of(rendered("production"), "HorizontalPodAutoscaler")
    [keda] = of(rendered("production-keda"), "ScaledObject")
    own, theirs = autoscaler["spec"], keda["spec"]
    assert (own["minReplicas"], own["maxReplicas"]) == (theirs["minReplicaCount"], theirs["maxReplicaCount"])
    assert own["behavior"] == theirs["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    targets = [each["external"]["target"] for each in own["metrics"]]
    assert targets == [
        {"type": "AverageValue", "averageValue": "128"}, {"type": "Value", "value": "100m"}
    ]  # fmt: skip
    assert [(each["metricType"], each["metadata"]["threshold"]) for each in theirs["triggers"]] == [
        ("AverageValue", "128"), ("Value", "0.1")
    ]  # fmt: skip


def test_as_many_batches_may_run_as_the_most_model_servers_take_two_each() -> None:
    [autoscaler] = of(rendered("production"), "HorizontalPodAutoscaler")
    assert settings("production")["in_flight"] == 2 * autoscaler["spec"]["maxReplicas"]


def test_model_servers_go_away_more_slowly_than_they_come() -> None:
    [autoscaler] = of(rendered("production"), "HorizontalPodAutoscaler")
    up, down = (autoscaler["spec"]["behavior"][way] for way in ("scaleUp", "scaleDown"))
    assert down["stabilizationWindowSeconds"] > up["stabilizationWindowSeconds"]
    assert down["policies"][0]["periodSeconds"] > up["policies"][0]["periodSeconds"]


def test_the_alert_rules_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    [rule] = of(rendered("production"), "PrometheusRule")
    assert rule["spec"] == rules, (
        "components/monitoring/prometheus-rule.yaml: expected the groups of rules.yaml; copy them"
    )


def test_grafana_gets_the_dashboard() -> None:
    dashboard = one(rendered("production"), "ConfigMap", "sluice-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {"dashboard.json": (ROOT / "deploy" / "grafana" / "dashboard.json").read_text()}
