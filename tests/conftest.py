"""Fixtures that several folders of tests share: the trained example models. No event loop is left behind by any."""

import asyncio
import contextlib
import fcntl
import gc
import os
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from sluice_models import train

# Several processes share the cores already; more threads of each would only take turns.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "var" / "models"
# What runs first: files that train a model each, then the longest files and folders. Whoever only uses a model comes
# later, so that nobody waits for another worker to train it, and what is long is not what comes last.
FIRST = [
    "models/test_glyphs.py",
    "models/test_dates.py",
    "models/test_digits.py",
    "models/test_clips.py",
    "models/test_language.py",
    "models/test_temperature.py",
    "export/test_equality.py",
    "docs/test_requests.py",
    "model_server/test_process.py",
    "contract/test_openapi.py",
    "export/test_folder.py",
    "export/test_whole_sequences.py",
    "client/test_generate.py",
    "simulation/test_cancellation.py",
    "end_to_end/test_sequences.py",
    "end_to_end/test_faults.py",
    "end_to_end/test_demo.py",
    "end_to_end/test_keras.py",
    "end_to_end/test_export.py",
    "cli/test_explain.py",
    "end_to_end/test_evaluate.py",
    "evaluator/test_process.py",
    "evaluator/test_dask.py",
    "evaluator/test_evaluation.py",
]
# Folders whose files ask the same processes, each of which starts once for every worker that has one of the files.
TOGETHER = ("tests/client/", "tests/docs/", "tests/loadtests/", "tests/model_server/")


class FolderOrFile(LoadFileScheduling):
    """Gives a worker a whole file, or a whole folder of those that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        together = (folder for folder in TOGETHER if nodeid.startswith(folder))
        return next(together, super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderOrFile | None:
    return FolderOrFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting imports stays to the end: nobody looks for garbage in it, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for `--dist loadfile --no-loadscope-reorder`, which hands them out as they come."""
    place = {ROOT / "tests" / name: i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(FIRST)))


@pytest.fixture(scope="session", autouse=True)
def _no_loop() -> None:
    """Otherwise looptime makes one before the first test that has none, here or before, and nobody closes it."""
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # none, and none to be made: a test was here
        warnings.simplefilter("ignore", DeprecationWarning)  # that there was none
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """By name of an example or network, a models directory with it alone; trained if `var/models` lacks it.

    Without the network `but`, if that is given by the end of its name.
    """

    def models_dir(name: str, but: str | None = None) -> Path:
        networks = [each for each in train._networks(name) if each.suffix != but]
        MODELS.mkdir(parents=True, exist_ok=True)
        with (MODELS.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not all(each.is_fresh(MODELS) for each in networks):
                build(networks)
        folder = tmp_path_factory.mktemp(name)
        for built in (each.folder(MODELS).parent for each in networks):
            (folder / built.name).symlink_to(built)
        return folder

    return models_dir


def build(networks: Iterable[train._Network]) -> None:
    """As `sluice models build` does, in this process: starting TensorFlow twice more takes as long as some training."""
    from tests.export.served import Opened, verified_by

    with warnings.catch_warnings(), closing(Opened()) as opened, verified_by(opened):
        warnings.simplefilter("ignore")  # what a training warns of is no test's failure
        for network in networks:
            network.build(MODELS)


@pytest.fixture(scope="session")
def temperature_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `temperature` model."""
    return trained("temperature")


@pytest.fixture(scope="session")
def dates_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `dates` model."""
    return trained("dates")


@pytest.fixture(scope="session")
def clips_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `clips` model."""
    return trained("clips")


@pytest.fixture(scope="session")
def language_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the trained `language` model."""
    return trained("language")


@pytest.fixture(scope="session")
def digits_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with three trained networks of `digits`; the one with output codes is judged deep."""
    return trained("digits", but="_codes")


@pytest.fixture(scope="session")
def glyphs_dir(trained: Callable[[str], Path]) -> Path:
    """A models directory with the network of `glyphs` that the gateway does best with; the others are judged deep."""
    return trained("glyphs_other")
