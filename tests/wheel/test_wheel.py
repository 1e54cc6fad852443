"""The wheel as users install it: bare it is the Python client, and each extra adds the commands that it names."""

import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from sluice.cli.extras import NEEDS, PROOF
from tests.conftest import ROOT
from tests.docs.pages import pages, text_of
from tests.end_to_end.serving import Gateway
from tests.wheel.conftest import Environment, installed, outside

CLIENT = """
import sys
from sluice.client import Client

with Client(sys.argv[1]) as client, client.open("sum") as session:
    print(session.step({"x": [1, 2]})["total"], client.predict("plain", [[1, 2]])["y"])
"""

KERAS = """
import sys
import keras

keras.Sequential([keras.Input((None, 2), name="x"), keras.layers.LSTM(3, name="lstm")]).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def gateway(with_gateway: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The installed gateway, in front of a puppet of a model server."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "tests.gateway.serve_puppet", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as puppet:
        assert puppet.stdout is not None
        backend = puppet.stdout.readline().strip()
        with serving(with_gateway, folder, "--backend", backend) as served:
            yield served
        puppet.communicate("")


def test_the_wheel_holds_two_packages_and_nothing_beside_them(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in ZipFile(wheel).namelist()}
    [info] = [name for name in names if name.endswith(".dist-info")]
    assert names == {"sluice", "sluice_models", info}
    assert info.startswith("sluice_serving-")


def test_a_bare_install_is_a_client(bare: Environment, gateway: Gateway) -> None:
    for url in (gateway.url, gateway.grpc_url):
        done = bare.run("python", "-c", CLIENT, url)
        assert (done.stdout, done.returncode) == ("[1. 2.] [[2. 4.]]\n", 0), done.stderr


@pytest.mark.parametrize("command", NEEDS)
def test_a_bare_install_says_in_one_line_which_extra_a_command_needs(bare: Environment, command: str) -> None:
    done = bare.run("sluice", command, "--help")
    extras = NEEDS[command]
    named = f"the extra {extras[0]}" if len(extras) == 1 else f"the extras {' and '.join(extras)}"
    told = f"sluice: \"sluice {command}\" needs {named}: pip install 'sluice-serving[{','.join(extras)}]'\n"
    assert (done.stderr, done.stdout, done.returncode) == (told, "", 2)


def test_a_bare_install_lists_the_commands_and_their_extras(bare: Environment) -> None:
    asked, nothing = bare.run("sluice", "--help"), bare.run("sluice")
    assert (asked.returncode, asked.stderr, asked.stdout) == (0, "", nothing.stderr)
    assert nothing.returncode == 2
    assert "from sluice.client import Client" in asked.stdout
    for command, extras in NEEDS.items():
        [line] = [line for line in asked.stdout.splitlines() if line.split()[:1] == [command]]
        assert line.endswith(f"pip install 'sluice-serving[{','.join(extras)}]'")


def test_the_extra_gateway_serves_without_tensorflow(with_gateway: Environment, gateway: Gateway) -> None:
    assert gateway.call("GET", "/healthz").status == 200
    listed = gateway.call("GET", "/v1/models").body["models"]
    assert "sum" in {model["name"] for model in listed}
    absent = with_gateway.run("python", "-c", "import tensorflow")
    assert "No module named 'tensorflow'" in absent.stderr


def test_the_extra_gateway_alone_says_what_the_embedded_model_server_needs(
    with_gateway: Environment, tmp_path: Path
) -> None:
    done = with_gateway.run("sluice", "serve", "--models", str(tmp_path))
    told = (
        "sluice: \"sluice serve --models\" needs the extra model-server: pip install 'sluice-serving[model-server]', "
        "or name a model server that runs: --backend HOST:PORT\n"
    )
    assert (done.stderr, done.returncode) == (told, 2)
    assert "serve         is installed" in with_gateway.run("sluice", "--help").stdout


def test_an_extra_is_known_by_a_distribution_that_it_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, (module, *_) in PROOF.items():
        distribution = {"tensorflow_serving": "tensorflow-serving-api"}.get(module, module)
        having = [name for name, needed in extras.items() if distribution in map(name_of, needed)]
        assert having == [extra]


@pytest.mark.parametrize("page", pages(), ids=str)
def test_no_page_installs_somebody_elses_distribution(page: Path) -> None:
    assert not re.search(r"pip install (?:-\S+ )*['\"]?sluice(?!-serving)\b", text_of(page))


@pytest.mark.deep
def test_the_extras_with_tensorflow_export_and_serve(wheel: Path, tmp_path: Path) -> None:
    everything = installed(wheel, tmp_path / "venv", "[gateway,cli,export,model-server]", "demo.txt")
    made = everything.run("python", "-c", KERAS, str(tmp_path / "small.keras"))
    assert made.returncode == 0, made.stderr
    out = tmp_path / "models" / "small" / "1"
    exported = everything.run("sluice", "export", str(tmp_path / "small.keras"), "--out", str(out), timeout_s=300)
    assert exported.returncode == 0, exported.stderr
    assert everything.run("sluice", "explain", str(out)).returncode == 0
    with serving(everything, tmp_path, "--models", str(tmp_path / "models")) as served:
        answer = served.call("POST", "/v1/models/small:predict", {"instances": [[[1.0, 2.0]]]})
        assert answer.status == 200, answer.body


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


@contextmanager
def serving(environment: Environment, folder: Path, *flags: str) -> Iterator[Gateway]:
    """`sluice serve` of an environment, ready, until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [environment.command("sluice"), "serve", "--http", address, "--grpc", "127.0.0.1:0", *flags]
    log = folder / "serve.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=outside()) as process:
        try:
            gateway = Gateway(f"http://{address}", process, log)
            gateway.until_ready()
            yield gateway
        finally:
            process.terminate()
