"""Versions come and go while the server runs. One process; every test has a model of its own."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from tests.model_server import zoo
from tests.model_server.conftest import PATIENCE_S, Client, Server, floats, refused, until

X = floats(1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    running = Server(tmp_path_factory.mktemp("versions"), f"--models={root}")
    yield running.client
    running.close()


@pytest.fixture
def model(root: Path, request: pytest.FixtureRequest) -> str:
    """A model's name; it has no version yet."""
    (root / request.node.name).mkdir()
    return request.node.name


@pytest.fixture
def folder(root: Path, model: str) -> Path:
    return root / model


def put(folder: Path, version: int, value: float, name: str = "") -> None:
    """A version that answers `value`, moved into place as a whole."""
    made = zoo.save(folder.parent.parent / f"made-{folder.name}-{version}", lambda: zoo.constant(value))
    folder.mkdir(exist_ok=True)
    made.rename(folder / (name or str(version)))


def states(client: Client, model: str) -> dict[int, str]:
    return {version: state for version, (state, _) in client.state(model).items()}


def answer(client: Client, model: str) -> float:
    return float(client.predict(model, x=X)["y"][0])


def served(client: Client, model: str, version: int) -> None:
    until(lambda: states(client, model).get(version) == "AVAILABLE", f"version {version} of {model}")


def test_a_model_that_appears_is_served(client: Client, folder: Path, model: str) -> None:
    assert states(client, model) == {}
    put(folder, 1, 10)
    served(client, model, 1)
    assert answer(client, model) == 10


def test_a_version_without_a_saved_model_is_told(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    served(client, model, 1)
    (folder / "notes").mkdir()
    (folder / "7" / "variables").mkdir(parents=True)
    until(lambda: states(client, model) == {7: "END", 1: "AVAILABLE"}, "version 7 to be tried")
    assert code(client, model, 7) == "NOT_FOUND"
    assert answer(client, model) == 10


def test_a_new_version_takes_over_and_no_call_fails_meanwhile(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    served(client, model, 1)
    over, started = Event(), Event()

    def keep_calling() -> set[float]:
        seen = set()
        while not over.is_set():
            seen.add(answer(client, model))
            started.set()
        return seen

    with ThreadPoolExecutor(2) as callers:
        calling = [callers.submit(keep_calling) for _ in range(2)]
        try:
            started.wait()
            put(folder, 2, 20)
            until(lambda: answer(client, model) == 20, "version 2")
            until(lambda: states(client, model) == {2: "AVAILABLE", 1: "END"}, "version 1 to go")
        finally:
            over.set()
        assert set.union(*(each.result() for each in calling)) <= {10.0, 20.0}
    with refused("NOT_FOUND"):
        client.predict(model, version=1, x=X)


def test_a_broken_version_is_reported_and_the_old_one_stays(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    served(client, model, 1)
    broken(folder, 2)
    until(lambda: states(client, model).get(2) == "END", "the broken version")
    assert states(client, model) == {2: "END", 1: "AVAILABLE"}
    assert code(client, model, 2) == "DATA_LOSS"
    assert answer(client, model) == 10
    with refused("NOT_FOUND"):
        client.predict(model, version=2, x=X)


def test_a_broken_version_is_tried_again_once_it_changes(client: Client, folder: Path, model: str) -> None:
    broken(folder, 1)
    until(lambda: states(client, model) == {1: "END"}, "the broken version")
    made = zoo.save(folder.parent.parent / f"made-{model}", lambda: zoo.constant(10))
    shutil.copyfile(made / "saved_model.pb", folder / "1" / "saved_model.pb")
    served(client, model, 1)


def test_taking_the_newest_version_away_goes_back_to_the_one_before(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    put(folder, 2, 20)
    served(client, model, 2)
    shutil.rmtree(folder / "2")
    until(lambda: states(client, model) == {2: "END", 1: "AVAILABLE"}, "version 1 to come back")
    assert answer(client, model) == 10


def test_the_last_version_stays_while_nothing_can_replace_it(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    served(client, model, 1)
    broken(folder, 2)
    shutil.rmtree(folder / "1")
    until(lambda: states(client, model).get(2) == "END", "the broken version")
    assert answer(client, model) == 10


def test_a_model_that_is_removed_goes(client: Client, folder: Path, model: str) -> None:
    put(folder, 1, 10)
    served(client, model, 1)
    shutil.rmtree(folder)
    until(lambda: states(client, model) == {1: "END"}, "the model to go")
    with refused("NOT_FOUND"):
        client.predict(model, x=X)


def test_a_version_may_be_written_with_leading_zeros(client: Client, folder: Path, model: str) -> None:
    put(folder, 3, 30, "003")
    served(client, model, 3)
    assert answer(client, model) == 30


def broken(folder: Path, version: int) -> None:
    made = folder.parent.parent / f"broken-{folder.name}"
    made.mkdir()
    (made / "saved_model.pb").write_bytes(b"not a graph")
    folder.mkdir(exist_ok=True)
    made.rename(folder / str(version))


def code(client: Client, model: str, version: int) -> str:
    """The error code of a version, by name."""
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name, asked.model_spec.version.value = model, version
    (told,) = client.models.GetModelStatus(asked, PATIENCE_S).model_version_status
    return {code.value[0]: code.name for code in grpc.StatusCode}[told.status.error_code]
