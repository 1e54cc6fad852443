"""Configuration: files of models with policies and labels, reloads by message and by file, metrics."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from sluice.model_server.config import batching_in, configs_in, configured, metrics_path_in
from sluice.model_server.config_file import ConfigFile
from sluice.model_server.errors import InvalidArgument, ServingError
from tests.model_server import zoo
from tests.model_server.conftest import PATIENCE_S, Client, Server, floats, refused, request, start, until

X = floats(1)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1, 2 and 3 of a model `a`, and 1 of `b`; each answers its number."""
    root = tmp_path_factory.mktemp("shelf")
    for name, version in [("a", 1), ("a", 2), ("a", 3), ("b", 1)]:
        zoo.save(root / name / str(version), lambda value=version: zoo.constant(value))
    return root


def entry(shelf: Path, name: str, more: str = "") -> str:
    return f"config {{ name: '{name}' base_path: '{shelf / name}' model_platform: 'tensorflow' {more} }}"


def listed(*entries: str) -> str:
    return f"model_config_list {{ {' '.join(entries)} }}"


def label(name: str, version: int) -> str:
    return f"version_labels {{ key: '{name}' value: {version} }}"


def policy(chosen: str) -> str:
    return f"model_version_policy {{ {chosen} }}"


ONE_AND_TWO = policy("specific { versions: 1 versions: 2 }")


@pytest.fixture(scope="module")
def file(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("config") / "models.config"
    made.write_text(listed(entry(shelf, "a", ONE_AND_TWO)))
    return made


@pytest.fixture(scope="module")
def server(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    monitoring = file.parent / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true path: '/metrics' }")
    flags = ("--model_config_file_poll_wait_seconds=0.05", f"--monitoring_config_file={monitoring}")
    running = Server(tmp_path_factory.mktemp("configured"), f"--model_config_file={file}", *flags)
    yield running
    running.close()


@pytest.fixture
def client(server: Server, shelf: Path) -> Client:
    """The server as its file says, and with labels on what that serves, whatever a test before made of it."""
    reload(server.client, listed(entry(shelf, "a", ONE_AND_TWO)))
    reload(server.client, listed(entry(shelf, "a", ONE_AND_TWO + label("stable", 1) + label("canary", 2))))
    return server.client


def reload(client: Client, config: str) -> None:
    parsed = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    client.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(config=parsed), PATIENCE_S)


def labelled(client: Client, name: str, model: str = "a") -> float:
    asked = request(model, x=X)
    asked.model_spec.version_label = name
    return float(tf.make_ndarray(client.predictions.Predict(asked, PATIENCE_S).outputs["y"])[0])


def available(client: Client, model: str) -> set[int]:
    return {version for version, (state, _) in client.state(model).items() if state == "AVAILABLE"}


def test_the_versions_that_the_policy_names_are_served_and_no_others(client: Client) -> None:
    assert available(client, "a") == {1, 2}
    assert client.predict("a", version=1, x=X)["y"][0] == 1
    assert client.predict("a", x=X)["y"][0] == 2
    with refused("NOT_FOUND"):
        client.predict("a", version=3, x=X)


def test_a_label_is_a_name_for_a_version(client: Client) -> None:
    assert [labelled(client, name) for name in ("stable", "canary")] == [1, 2]
    for unknown in ("nosuch", ""):
        with refused("INVALID_ARGUMENT"):
            labelled(client, unknown)


def test_a_reload_replaces_all_and_answers_when_it_is_done(client: Client, shelf: Path) -> None:
    latest = policy("latest { num_versions: 2 }")
    reload(client, listed(entry(shelf, "b"), entry(shelf, "a", latest)))
    assert (available(client, "a"), available(client, "b")) == ({2, 3}, {1})
    reload(client, listed(entry(shelf, "b")))
    assert not available(client, "a")
    with refused("NOT_FOUND"):
        client.predict("a", x=X)
    reload(client, listed(entry(shelf, "b"), entry(shelf, "a", policy("all {}"))))
    assert available(client, "a") == {1, 2, 3}


def test_a_label_moves_in_two_steps_the_version_first(client: Client, shelf: Path) -> None:
    newer = policy("latest { num_versions: 2 }")
    with refused("FAILED_PRECONDITION"):
        reload(client, listed(entry(shelf, "a", newer + label("stable", 3))))
    assert (available(client, "a"), labelled(client, "stable")) == ({1, 2}, 1)
    reload(client, listed(entry(shelf, "a", policy("all {}") + label("stable", 1))))
    reload(client, listed(entry(shelf, "a", newer + label("stable", 3))))
    assert (available(client, "a"), labelled(client, "stable")) == ({2, 3}, 3)


def test_a_label_on_a_version_that_has_gone_is_of_no_version(client: Client, shelf: Path) -> None:
    reload(client, listed(entry(shelf, "a", label("stable", 1))))  # 1 is available until 3 takes its place
    assert available(client, "a") == {3}
    with refused("NOT_FOUND"):
        labelled(client, "stable")


WRONG = {
    "nothing": "",
    "twice": "model_config_list { %(a)s %(a)s }",
    "relative": "model_config_list { config { name: 'a' base_path: 'not/absolute' model_platform: 'tensorflow' } }",
    "elsewhere": "model_config_list { config { name: 'a' base_path: 'gs://b/a' model_platform: 'tensorflow' } }",
    "platform": "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'other' } }",
    "no platform": "model_config_list { config { name: 'a' base_path: '/a' } }",
    "old platform": "model_config_list { config { name: 'a' base_path: '/a' model_type: OTHER } }",
    "no name": "model_config_list { config { base_path: '/a' model_platform: 'tensorflow' } }",
    "no versions": "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'tensorflow' "
    "model_version_policy { specific {} } } }",
    "custom": "custom_model_config { type_url: 'a' }",
}


def test_a_reload_that_cannot_be_done_changes_nothing(client: Client, shelf: Path) -> None:
    for wrong in WRONG.values():
        with refused("INVALID_ARGUMENT"):
            reload(client, wrong.replace("%(a)s", entry(shelf, "a")))
    assert (available(client, "a"), labelled(client, "canary")) == ({1, 2}, 2)


def test_a_reload_with_a_new_model_that_cannot_be_loaded_is_told_and_the_rest_is_done(
    client: Client, shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "c" / "1").mkdir(parents=True)
    (tmp_path / "c" / "1" / "saved_model.pb").write_bytes(b"not a graph")
    with refused("UNKNOWN"):
        reload(client, listed(entry(shelf, "b"), entry(tmp_path, "c")))
    assert (available(client, "a"), available(client, "b")) == (set(), {1})
    assert client.state("c")[1][0] == "END"


def test_a_model_that_moves_to_another_folder_is_served_from_there(client: Client, shelf: Path) -> None:
    reload(client, listed(entry(shelf, "b").replace("'b'", "'a'", 1)))
    assert available(client, "a") == {1}
    assert client.predict("a", x=X)["y"][0] == 1


def test_the_file_is_read_again_and_one_that_is_wrong_changes_nothing(client: Client, file: Path, shelf: Path) -> None:
    before = file.read_text()
    file.write_text(listed(entry(shelf, "b")))
    until(lambda: available(client, "b") and not available(client, "a"), "the new configuration")
    file.write_text("nonsense {")
    file.write_text(listed(entry(shelf, "a"), entry(shelf, "a")))
    assert client.predict("b", x=X)["y"][0] == 1
    file.write_text(before)
    until(lambda: available(client, "a") == {1, 2}, "a configuration that can be used")


def test_requests_are_counted_under_official_names(server: Server, client: Client) -> None:
    def counted(model: str, status: str) -> int:
        found = re.search(rf':request_count{{model_name="{model}",status="{status}"}} (\d+)', page())
        return int(found[1]) if found else 0

    def page() -> str:
        asked = server.rest.get("/metrics")
        assert asked.headers["content-type"].startswith("text/plain")
        return asked.text

    before = counted("a", "OK"), counted("", "NOT_FOUND"), counted("a", "NOT_FOUND")
    client.predict("a", x=X)
    server.post("a", instances=[1])
    server.post("never-was", instances=[1])
    with refused("NOT_FOUND"):
        client.predict("a", version=9, x=X)
    after = counted("a", "OK"), counted("", "NOT_FOUND"), counted("a", "NOT_FOUND")
    assert [now - then for then, now in zip(before, after, strict=True)] == [2, 1, 1]
    samples = [sample for family in text_string_to_metric_families(page()) for sample in family.samples]
    timed = [each.labels for each in samples if each.name == ":tensorflow:serving:request_latency_count"]
    assert {each["entrypoint"] for each in timed if each["API"] == "Predict"} == {"GRPC", "REST"}
    assert {each["model_name"] for each in timed} <= {"a", "b"}
    loaded = r':tensorflow:cc:saved_model:load_attempt_count{model_path="[^"]+/a/2",status="success"} [1-9]'
    assert re.search(loaded, page())


def test_a_server_does_not_start_with_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("nonsense {")
    process = start(f"--model_config_file={file}", "--port=0", f"--grpc_socket_path={tmp_path}/s", "--rest_api_port=0")
    _, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "cannot start" in told, str(file) in told) == (1, True, True)
    assert "Traceback" not in told


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_configuration_that_cannot_be_used_is_refused_with_a_sentence(shelf: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="model"):
        configs_in(text.replace("%(a)s", entry(shelf, "a")).encode())


@pytest.mark.parametrize("content", [b"nonsense {", b"\xff\xfe", b"model_config_list { config { nosuch: 1 } }"])
def test_what_is_no_configuration_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match="ModelServerConfig"):
        configs_in(content)


def test_a_file_is_read_as_it_is_written(shelf: Path) -> None:
    old = entry(shelf, "c").replace("model_platform: 'tensorflow'", "model_type: TENSORFLOW")
    latest = policy("latest { num_versions: 2 }")
    every = policy("all {}") + label("stable", 2)
    configs = configs_in(listed(entry(shelf, "a", every), entry(shelf, "b", latest), old).encode())
    assert [configs[name].labels for name in ("a", "b")] == [{"stable": 2}, {}]
    assert [configs[name].policy([1, 2, 3]) for name in ("a", "b", "c")] == [{1, 2, 3}, {2, 3}, {3}]
    assert configured(model_server_config_pb2.ModelServerConfig(model_config_list={})) == {}


def test_a_file_is_used_once_it_has_changed_and_can_be_used(tmp_path: Path, shelf: Path) -> None:
    path, used, refusing = tmp_path / "models.config", [], []

    def configure(configs: object) -> None:
        if refusing:
            raise ServingError("FAILED_PRECONDITION", "not yet")
        used.append(configs)

    def read_again(text: str | None = None) -> int:
        if text is not None:
            path.write_text(text)
        file.read_again(configure)
        return len(used)

    path.write_text(listed(entry(shelf, "a")))
    file = ConfigFile(path)
    other = listed(entry(shelf, "b"))
    with capture_logs() as logs:
        assert [read_again(), read_again(other), read_again()] == [0, 1, 1]
        assert [read_again("nonsense {"), read_again(), read_again(other)] == [1, 1, 1]
        refusing.append(True)
        assert [read_again(listed(entry(shelf, "a"))), read_again()] == [1, 1]
        refusing.clear()
        assert [read_again(), read_again()] == [2, 2]
        path.unlink()
        assert [read_again(), read_again(other)] == [2, 3]
    assert [each["event"] for each in logs] == ["the model configuration cannot be used"] * 3


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ("prometheus_config { enable: false path: '/x' }", None),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true path: '/x' }", "/x"),
    ],
)
def test_the_metrics_are_where_the_file_says(text: str, path: str | None) -> None:
    assert metrics_path_in(text.encode()) == path


@pytest.mark.parametrize("text", ["prometheus_config { enable: true path: 'x' }", "nosuch: 1", "prometheus_config {"])
def test_a_monitoring_file_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        metrics_path_in(text.encode())


GOOD_BATCHES = {
    "": 1000,
    "max_batch_size { value: 32 } batch_timeout_micros { value: 0 } allowed_batch_sizes: [8, 16, 32]": 32,
    "num_batch_threads { value: 4 } max_enqueued_batches { value: 100 } thread_pool_name { value: 'p' }": 1000,
    "allowed_batch_sizes: 16 max_execution_batch_size { value: 16 } enable_large_batch_splitting { value: true }": None,
}
BAD_BATCHES = {
    "nosuch: 1": "BatchingParameters",
    "max_batch_size { value: 0 }": "max_batch_size of 1 or more; got 0",
    "num_batch_threads { value: -1 }": "num_batch_threads",
    "allowed_batch_sizes: [4, 2]": "increase",
    "allowed_batch_sizes: [0, 2]": "increase",
    "max_batch_size { value: 32 } allowed_batch_sizes: [8, 16]": "32; got 16",
}


@pytest.mark.parametrize(("text", "rows"), GOOD_BATCHES.items())
def test_batching_parameters_say_how_many_rows_a_request_may_have(text: str, rows: int | None) -> None:
    assert batching_in(text.encode()).rows == rows


@pytest.mark.parametrize(("text", "sentence"), BAD_BATCHES.items())
def test_batching_parameters_that_cannot_be_used_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        batching_in(text.encode())
