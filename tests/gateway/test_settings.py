"""Flags, environment and YAML: which goes first, and what is refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from sluice.cli.serve_help import PANELS
from sluice.gateway.settings import Settings, SettingsError, load

ROOT = Path(__file__).parents[2]
NEEDED = "--backend=localhost:1"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("SLUICE_"):
            monkeypatch.delenv(name)


def sluice(*args, env=None):
    return subprocess.run(
        [sys.executable, "-m", "sluice.cli", *args],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200", **(env or {})}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_idle_connections_are_kept_longer_than_proxies_keep_theirs():
    assert load([NEEDED]).keep_alive_s > 60  # of nginx and of AWS; the shorter side closes first


def test_flags_go_before_the_environment_and_that_before_yaml(tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    file.write_text("timeout_ms: 1\nqueue_rows: 1\nin_flight: 7\nallowed_batch_sizes: [1, 2]\n")
    monkeypatch.setenv("SLUICE_TIMEOUT_MS", "2")
    monkeypatch.setenv("SLUICE_QUEUE_ROWS", "2")
    settings = load([NEEDED, "--config", str(file), "--timeout-ms", "3"])
    assert (settings.timeout_ms, settings.queue_rows, settings.in_flight) == (3, 2, 7)
    assert settings.allowed_batch_sizes == (1, 2)
    assert settings.poll_s == Settings().poll_s


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--models", "the folder of models, NAME/VERSION/saved_model.pb"),
        ("--calibrations", "the folder that `sluice calibrate` writes to, or an empty one (`mkdir -p DIR`)"),
    ],
)
def test_a_folder_that_is_named_has_to_be_there_and_one_that_is_close_is_suggested(
    tmp_path, monkeypatch, flag, expected
):
    here = tmp_path / "var" / "here"
    here.mkdir(parents=True)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert getattr(load([NEEDED, flag, "var/here"]), flag[2:]) == Path("var/here")
    for given, told in {
        "vra/heer": f"there is no folder vra/heer in {tmp_path}; did you mean var/here?",
        str(tmp_path / "var" / "ere"): f"there is no folder {tmp_path}/var/ere; did you mean {here}?",
        "var/else/where": f"there is no folder var/else/where in {tmp_path}",
        "file": "file is a file",
    }.items():
        with pytest.raises(SettingsError) as refused:
            load([NEEDED, flag, given])
        assert str(refused.value) == f"{flag}: expected {expected}; {told}"


def test_http_and_grpc_need_an_address_each():
    with pytest.raises(SettingsError, match="--http and --grpc are two addresses; both are localhost:1"):
        load([NEEDED, "--http=localhost:1", "--grpc=localhost:1"])
    assert load([NEEDED, "--http=localhost:0", "--grpc=localhost:0"])


@pytest.mark.parametrize(
    ("arguments", "served"),
    [
        ([], "--http 127.0.0.1:8080 --grpc 127.0.0.1:8081"),
        (["HTTP=127.0.0.1:9090"], "--http 127.0.0.1:9090 --grpc 127.0.0.1:9091"),
        (["HTTP=[::1]:9090"], "--http [::1]:9090 --grpc [::1]:9091"),
        (["HTTP=127.0.0.1:0"], "--http 127.0.0.1:0 --grpc 127.0.0.1:0"),
        (["HTTP=127.0.0.1:9090", "GRPC=127.0.0.1:7"], "--http 127.0.0.1:9090 --grpc 127.0.0.1:7"),
        (["CALIBRATIONS=cal"], "--http 127.0.0.1:8080 --grpc 127.0.0.1:8081 --calibrations cal"),
    ],
)
def test_make_serve_moves_both_ports_and_takes_calibrations(arguments, served):
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not below `make test`
    shown = subprocess.run(
        ["make", "--dry-run", "serve", *arguments],
        cwd=ROOT, env=alone, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    *_, command = shown.stdout.splitlines()
    # Where there are calibrations in var/calibrations, they are taken without being named.
    assert command.split("--models var/models ")[1].split()[: len(served.split())] == served.split()


def test_the_file_may_be_named_in_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    file.write_text("in_flight: 7\n")
    monkeypatch.setenv("SLUICE_CONFIG", str(file))
    assert load([NEEDED]).in_flight == 7


def test_what_is_set_reaches_the_rules():
    settings = load([NEEDED, "--allowed-batch-sizes=1,5", "--linger-ms=2", "--session-idle-s=3", "--session-evict"])
    assert (settings.batching.allowed_batch_sizes, settings.batching.linger_s) == ((1, 5), 0.002)
    assert (settings.sessions.idle_s, settings.sessions.evict) == (3, True)


@pytest.mark.parametrize(
    "flag",
    [
        "--timeout-ms=0",
        "--allowed-batch-sizes=2,1",
        "--allowed-batch-sizes=",
        "--allowed-batch-sizes=1,1",
        "--queue-rows=-1",
        "--in-flight=x",
        "--linger-ms=-1",
        "--http=8080",
        "--http=localhost:70000",
        "--backend=localhost:70000",
        "--backend=localhost:0",
        "--evaluator=http://localhost:0",
        "--session-idle-s=0",
        "--poll-s=0",
        "--keep-alive-s=0",
        "--arrival-s=inf",
        "--half-closed-s=-1",
        "--idle-connections=0",
        "--log-format=xml",
        "--cors-origins=example.com",
        "--cors-origins=http://a,https://b/",
        "--cors-origins=HTTP://example.com",
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(flag):
    name = flag.removeprefix("--").partition("=")[0]
    with pytest.raises(ValidationError) as refused:
        load([NEEDED, flag])
    assert name.replace("-", "_") in str(refused.value)


@pytest.mark.parametrize(
    ("given", "origins"),
    [("", ()), ("*", ("*",)), ("http://a:8080,https://b.example", ("http://a:8080", "https://b.example"))],
)
def test_origins_are_a_list(given, origins):
    assert load([NEEDED, f"--cors-origins={given}"]).cors_origins == origins


def test_an_unknown_flag_ends_with_code_2_and_its_name():
    ended = sluice("serve", NEEDED, "--queue-rosw=3")
    told = "there is no flag --queue-rosw=3; did you mean --queue-rows? `sluice serve --help` lists them"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"sluice: {told}\n")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--port", "8080"], "there is no flag --port; did you mean --http HOST:PORT, and --grpc HOST:PORT beside it?"),
        (["--rest_api_port=8501"], "did you mean --http HOST:PORT"),
        (["--model_base_path=/m"], "there is no flag --model_base_path=/m; did you mean --models DIR"),
        (["--model", "var/models"], "there is no flag --model; did you mean --models? "),
        (["--prot", "8080"], "there is no flag --prot; did you mean --http HOST:PORT"),
        (["--tls"], "there is no flag --tls; `sluice serve --help` lists them"),
        (["var/models"], "expected flags, got 'var/models'; did you mean --models var/models?"),
        (["--http"], "--http: expected a value behind it"),
        (["--http", "a:1", "--scan-chunks=x"], "--scan-chunks: expected JSON such as {"),
    ],
)
def test_of_flags_that_cannot_be_used_it_is_told_which_may_be_meant(given, told):
    with pytest.raises(SettingsError) as refused:
        load([NEEDED, *given])
    assert told in str(refused.value)


def test_an_unknown_variable_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("SLUICE_QUEUE_ROSW", "3")
    with pytest.raises(SettingsError, match="SLUICE_QUEUE_ROSW"):
        load([NEEDED])


def test_an_unknown_key_ends_with_code_2_and_its_name(tmp_path):
    (tmp_path / "settings.yaml").write_text("queue_rosw: 3\n")
    ended = sluice("serve", NEEDED, "--config", str(tmp_path / "settings.yaml"))
    told = f"config: {tmp_path / 'settings.yaml'}: there is no setting 'queue_rosw'; did you mean queue_rows?"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"sluice: {told}\n")


def test_an_unknown_key_with_keys_of_its_own_is_refused_by_name(tmp_path):
    (tmp_path / "settings.yaml").write_text("queue_rosw:\n  deep: 1\nqueue_rows: 3\n")
    with pytest.raises(SettingsError, match="queue_rosw"):
        load([NEEDED, "--config", str(tmp_path / "settings.yaml")])


@pytest.mark.parametrize("text", ["- 1\n", "{", "queue_rows: [1\n", "just text\n"])
def test_a_file_that_is_not_settings_is_refused_in_words(tmp_path, text):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        load([NEEDED, "--config", str(tmp_path / "settings.yaml")])


def test_a_missing_file_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"/nowhere/settings\.yaml"):
        load([NEEDED, "--config", "/nowhere/settings.yaml"])


def test_help_lists_every_setting_with_its_description():
    ended = sluice("serve", "--help")
    assert ended.returncode == 0
    flat = " ".join(ended.stdout.replace("│", " ").split())
    assert all(f"─ {panel} ─" in flat for panel in ("Options", *PANELS.values()))
    assert "[default: 127.0.0.1:8080]" in flat
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in flat
        assert " ".join(field.description.split()) in flat


def test_every_setting_says_what_it_is():
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.rstrip().endswith("."), name


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().timeout_ms = 3  # type: ignore[misc]


def test_something_to_serve_must_be_named():
    with pytest.raises(SettingsError, match="--models"):
        load([])


def test_a_value_is_refused_by_the_name_that_it_was_given_by(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("linger_ms: fast\n")
    told = "expected a number, got 'fast'\n"
    for args, env, name in (
        (["--linger-ms", "fast"], {"SLUICE_LINGER_MS": "slow"}, "--linger-ms"),
        ([], {"SLUICE_LINGER_MS": "fast"}, "SLUICE_LINGER_MS"),
        (["--config", str(file)], {}, "linger_ms"),
    ):
        ended = sluice("serve", NEEDED, *args, env=env)
        assert (ended.returncode, ended.stderr) == (2, f"sluice: {name}: {told}")


@pytest.mark.parametrize("address", ["localhost:1", "unix:/run/model.sock", "dns:///model:8500", "[::1]:8500"])
def test_a_model_server_is_named_as_grpc_names_it(address):
    assert load([f"--backend={address}"]).backend == address
