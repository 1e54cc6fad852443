"""The command line: TensorFlow Serving's flags, and what becomes of each."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from sluice.model_server.flags import GROUPS, load
from sluice.model_server.main import main
from sluice.model_server.settings import NO_EFFECT, REFUSED, ModelServerSettings, flags_of

MODELS = "--models=a"
# As `tensorflow_model_server --help` lists them.
ORIGINAL = [
    "port", "grpc_socket_path", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support", "enable_batching", "allow_version_labels_for_unavailable_models",
    "batching_parameters_file", "enable_per_model_batching_parameters", "model_config_file",
    "model_config_file_poll_wait_seconds", "model_name", "model_base_path", "num_load_threads",
    "num_unload_threads", "max_num_load_retries", "load_retry_interval_micros", "file_system_poll_wait_seconds",
    "flush_filesystem_caches", "tensorflow_session_parallelism", "tensorflow_session_config_file",
    "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "use_alts_credentials", "ssl_config_file",
    "platform_config_file", "per_process_gpu_memory_fraction", "saved_model_tags", "grpc_channel_arguments",
    "grpc_max_threads", "enable_model_warmup", "num_request_iterations_for_warmup", "monitoring_config_file",
    "remove_unused_fields_from_bundle_metagraph", "prefer_tflite_model", "num_tflite_pools",
    "num_tflite_interpreters_per_pool", "enable_signature_method_name_check", "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled", "enable_profiler", "thread_pool_factory_config_file", "mixed_precision",
    "skip_initialize_tpu", "enable_grpc_healthcheck_service", "enable_serialization_as_tensor_content",
]  # fmt: skip


def test_help_tells_of_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert not [name for name in ORIGINAL if f"--{name} " not in said]
    assert [group for group in GROUPS if f"\n{group}:" in said] == [*GROUPS]


def test_version_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(["--version"])
    assert version("tensorflow") in capsys.readouterr().out


def test_tensorflow_may_come_from_another_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        if name == "tensorflow":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("sluice.model_server.flags.version", not_found)
    assert load([MODELS]).models == Path("a")


def test_every_flag_is_in_one_group() -> None:
    assert sorted(name for group in GROUPS for name in flags_of(group)) == sorted(ModelServerSettings.model_fields)


def test_flags_are_read_without_tensorflow() -> None:
    code = "import sys; from sluice.model_server import flags, main; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["--enable_model_warmup"], True),
        (["--enable_model_warmup=true"], True),
        (["--enable_model_warmup=false"], False),
        (["--enable_model_warmup", "false"], False),
        (["--enable_model_warmup=0"], False),
        (["--enable_model_warmup", MODELS], True),
    ],
)
def test_a_switch_is_written_in_many_ways(written: list[str], meant: bool) -> None:
    assert load([MODELS, *written]).enable_model_warmup is meant


def test_a_value_may_stand_apart_and_an_empty_one_is_none() -> None:
    settings = load(["--models", "a", "--port", "7", "--monitoring_config_file=", "--saved_model_tags="])
    assert (str(settings.models), settings.port) == ("a", 7)
    assert (settings.monitoring_config_file, settings.tags) == (None, ["serve"])


def test_with_a_configuration_file_a_single_model_is_not_looked_at() -> None:
    flags = ["--model_config_file=c", "--model_name=m", "--model_base_path=/m"]  # as TensorFlow Serving's image has it
    assert str(load(flags).model_config_file) == "c"


def test_what_has_no_effect_is_told_where_it_is_set() -> None:
    assert load([MODELS, "--enable_batching"]).without_effect == []
    assert load([MODELS, "--num_load_threads=4", "--rest_api_num_threads=4"]).without_effect == [
        "rest_api_num_threads",
        "num_load_threads",
    ]


def test_threads_are_one_number_or_two() -> None:
    assert load([MODELS, "--tensorflow_session_parallelism=3"]).threads == (3, 3)
    assert load([MODELS, "--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=1"]).threads == (1, 0)


def test_every_flag_without_effect_may_be_set() -> None:
    for name in flags_of(NO_EFFECT):
        assert load([MODELS, "--enable_batching", f"--{name}=1"])


@pytest.mark.parametrize("name", [*flags_of(REFUSED)])
def test_what_would_change_answers_and_cannot_be_done_is_refused_with_a_reason(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([MODELS, f"--{name}=1"]) == 2
    assert f"--{name} is refused: " in capsys.readouterr().err
    assert load([MODELS, f"--{name}=" if ModelServerSettings.model_fields[name].annotation is str else f"--{name}=0"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "sluice model-server: expected one of --models"),
        (["--model_name=one"], "goes with --model_base_path"),
        (["--models=a", "--model_name=one", "--model_base_path=b"], "--models goes without"),
        (["--models=a", "--model_config_file=b"], "--models goes without"),
        (["--models=a", "--file_system_poll_wait_seconds=-1"], "file_system_poll_wait_seconds"),
        (["--models=a", "--max_num_load_retries=-1"], "max_num_load_retries"),
        (["--models=a", "--port=70000"], "port"),
        (["--models=a", "--port=http"], "--port: expected a whole number, got 'http'"),
        (["--models=a", "--port"], "port"),
        (["--models=a", "--port=0"], "somewhere to listen"),
        (["--models=a", "--rest_api_port=8500"], "two ports"),
        (["--models=a", "--enable_batching=perhaps"], "enable_batching"),
        (["--models=a", "--batching_parameters_file=b"], "goes with --enable_batching"),
        (["--models=a", "--grpc_socket_permissions=rwx"], "in octal"),
        (["--models=a", "--grpc_socket_permissions=999"], "in octal"),
        (["--models=a", *(f"--tensorflow_{each}_parallelism=1" for each in ("session", "intra_op", "inter_op"))],
         "goes without the other two"),
        (["--models=a", "--nosuch=1"], "nosuch"),
        (["--models=a", "--enable_batch"], "enable_batch"),
        (["--models=a", "a"], "unrecognized"),
    ],
)  # fmt: skip
def test_wrong_flags_are_answered_with_a_sentence(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(flags) == 2
    assert sentence in capsys.readouterr().err


def code_of(flags: list[str]) -> int:
    """How `main` ends with these flags, be it by `sys.exit`."""
    try:
        return main(flags)
    except SystemExit as end:
        return int(end.code or 0)
