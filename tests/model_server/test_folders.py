"""What is loaded and let go as folders change, with a loader that only takes notes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sluice.model_folder import look
from sluice.model_server.config import Configs, ModelConfig, specific
from sluice.model_server.errors import NotFound, ServingError
from sluice.model_server.folders import models_in
from sluice.model_server.models import Models
from sluice.model_server.versions import Retries


@dataclass
class Loaded:
    """What the loader made of a version's folder."""

    path: Path


@dataclass
class Shelf:
    """A folder of models, the models read from it, and the versions that were loaded so far.

    A version whose `saved_model.pb` says "broken" cannot be loaded. `during` runs in the middle of each load. `now` is
    the time in seconds; what could not be loaded is tried twice again, ten seconds apart.
    """

    path: Path
    loaded: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    now: float = 0.0
    models: Models = field(init=False)

    def __post_init__(self) -> None:
        self.models = self.serving(lambda: models_in(self.path))

    def serving(self, configs: Callable[[], Configs], **options: Any) -> Models:
        return Models(configs, self._load, retries=Retries(2, 10.0), clock=lambda: self.now, **options)

    def config(self, name: str = "m", folder: str = "m", **options: Any) -> Configs:
        return {name: ModelConfig(name, self.path / folder, **options)}

    def put(self, version: str, text: str = "fine") -> Path:
        """Write MODEL/VERSION."""
        file = self.path / version / "saved_model.pb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def remove(self, version: str) -> None:
        (self.path / version / "saved_model.pb").unlink()
        (self.path / version).rmdir()

    def states(self, model: str = "m") -> dict[int, str]:
        return {version.number: version.state for version in self.models.versions(model)}

    def refresh(self, times: int = 1) -> dict[int, str]:
        for _ in range(times):
            self.models.refresh()
        return self.states()

    def _load(self, path: Path) -> Any:
        self.during()
        self.loaded.append(str(path.relative_to(self.path)))
        if not (path / "saved_model.pb").exists():
            raise ServingError("NOT_FOUND", f"{path} is empty")
        if (path / "saved_model.pb").read_text() == "broken":
            raise ServingError("INVALID_ARGUMENT", f"{path} is broken")
        return Loaded(path)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


def test_the_newest_version_by_number_is_served(shelf):
    for version in ("m/2", "m/10", "m/9"):
        shelf.put(version)
    assert shelf.refresh(times=3) == {10: "AVAILABLE"}
    assert shelf.models.find("m").number == 10
    assert shelf.loaded == ["m/10"]


def test_a_new_version_is_there_before_the_old_one_goes(shelf):
    shelf.put("m/1")
    shelf.refresh()
    shelf.put("m/2")
    seen = []
    shelf.during = lambda: seen.append((shelf.states(), shelf.models.find("m").number))
    assert shelf.refresh() == {2: "AVAILABLE", 1: "END"}
    assert seen == [({2: "LOADING", 1: "AVAILABLE"}, 1)]
    with pytest.raises(NotFound):
        shelf.models.find("m", 1)


def test_what_holds_a_version_may_finish_with_it(shelf):
    shelf.put("m/1")
    shelf.refresh()
    held = shelf.models.find("m")
    shelf.put("m/2")
    shelf.refresh()
    assert held.servable.path == shelf.path / "m/1"


def test_a_broken_version_is_reported_and_the_old_one_stays(shelf):
    shelf.put("m/1")
    shelf.refresh()
    shelf.put("m/2", "broken")
    assert shelf.refresh(times=3) == {2: "END", 1: "AVAILABLE"}
    assert shelf.loaded == ["m/1", "m/2"]
    broken, fine = shelf.models.versions("m")
    assert (broken.error.status, fine.error) == ("INVALID_ARGUMENT", None)
    assert shelf.models.find("m").number == 1


def test_a_broken_version_is_tried_again_when_its_files_change(shelf):
    shelf.put("m/1", "broken")
    assert shelf.refresh() == {1: "END"}
    (shelf.path / "m/1/variables").mkdir()
    (shelf.path / "m/1/variables/variables.index").write_text("copied late")
    shelf.put("m/1", "mended")
    assert shelf.refresh() == {1: "AVAILABLE"}


def test_a_broken_version_that_is_replaced_by_a_newer_one_is_not_tried_again(shelf):
    shelf.put("m/1", "broken")
    shelf.refresh()
    shelf.put("m/2")
    assert shelf.refresh(times=2) == {2: "AVAILABLE", 1: "END"}
    assert shelf.loaded == ["m/1", "m/2"]


def test_deleting_the_newest_version_goes_back_to_the_one_before(shelf):
    shelf.put("m/1")
    shelf.put("m/2")
    shelf.refresh()
    shelf.remove("m/2")
    assert shelf.refresh(times=3) == {2: "END", 1: "AVAILABLE"}
    assert shelf.loaded == ["m/2", "m/1"]


def test_going_back_to_a_broken_version_keeps_the_one_that_works(shelf):
    shelf.put("m/1", "broken")
    shelf.put("m/2")
    shelf.refresh()
    shelf.remove("m/2")
    assert shelf.refresh(times=2) == {2: "AVAILABLE", 1: "END"}


def test_a_version_that_was_let_go_can_come_back(shelf):
    shelf.put("m/1")
    shelf.refresh()
    shelf.put("m/2")
    shelf.refresh()
    shelf.remove("m/2")
    assert shelf.refresh() == {2: "END", 1: "AVAILABLE"}
    shelf.put("m/2")
    assert shelf.refresh() == {2: "AVAILABLE", 1: "END"}


@pytest.mark.parametrize("name", ["latest", "1.tmp", "-1", "1a", "temp-2", "٣", "9" * 19])
def test_folders_whose_name_is_not_a_version_are_ignored(shelf, name):
    shelf.put("m/1")
    shelf.put(f"m/{name}")
    assert shelf.refresh() == {1: "AVAILABLE"}


def test_leading_zeros_do_not_hide_a_version(shelf):
    shelf.put("m/007")
    assert shelf.refresh(times=2) == {7: "AVAILABLE"}
    assert shelf.loaded == ["m/007"]


def test_a_half_written_version_is_told_and_loaded_when_its_graph_comes(shelf):
    shelf.put("m/1")
    shelf.refresh()
    (shelf.path / "m/2/variables").mkdir(parents=True)
    assert shelf.refresh() == {2: "END", 1: "AVAILABLE"}
    assert shelf.models.versions("m")[0].error.status == "NOT_FOUND"
    shelf.put("m/2")
    assert shelf.refresh() == {2: "AVAILABLE", 1: "END"}


def test_models_come_and_go_with_their_folders(shelf):
    shelf.models.refresh()
    with pytest.raises(NotFound):
        shelf.models.find("m")
    shelf.put("m/1")
    shelf.put("n/1")
    assert shelf.refresh() == shelf.states("n") == {1: "AVAILABLE"}
    shelf.remove("m/1")
    shelf.models.refresh()
    with pytest.raises(NotFound):
        shelf.models.find("m")
    assert (shelf.states(), shelf.models.find("n").number) == ({1: "END"}, 1)


def test_a_folder_of_empty_versions_is_no_model(shelf):
    (shelf.path / "m/1").mkdir(parents=True)
    shelf.models.refresh()
    assert not shelf.models.knows("m")


def test_a_version_that_is_let_go_is_unloading_until_its_last_call_ends(shelf):
    shelf.put("m/1")
    shelf.refresh()
    held = shelf.models.find("m").servable
    shelf.put("m/2")
    assert shelf.refresh(times=2) == {2: "AVAILABLE", 1: "UNLOADING"}
    del held
    assert shelf.states() == {2: "AVAILABLE", 1: "END"}


def test_a_model_that_goes_is_remembered_once_its_last_call_ends(shelf):
    shelf.put("m/1")
    shelf.refresh()
    held = shelf.models.find("m").servable
    shelf.remove("m/1")
    assert shelf.refresh() == {1: "UNLOADING"}
    del held
    assert shelf.refresh() == {1: "END"}
    assert [each.servable for each in shelf.models.versions("m") if hasattr(each, "servable")] == []


def test_several_versions_are_loaded_one_after_another_the_newest_first(shelf):
    for version in ("m/1", "m/2", "m/3"):
        shelf.put(version)
    seen = []
    shelf.during = lambda: seen.append([*shelf.states().values()])
    models = shelf.models = shelf.serving(dict)
    models.configure(shelf.config(policy=set))
    assert shelf.loaded == ["m/3", "m/2", "m/1"]
    assert seen == [["LOADING", "START", "START"], ["AVAILABLE", "LOADING", "START"], ["AVAILABLE"] * 2 + ["LOADING"]]


def test_what_cannot_be_loaded_is_tried_again_so_often_and_so_far_apart(shelf):
    shelf.put("m/1", "broken")
    tries = []
    for shelf.now in (0, 9, 10, 11, 19, 20, 40, 1000):
        assert shelf.refresh() == {1: "END"}
        tries.append(len(shelf.loaded))
    assert tries == [1, 1, 2, 2, 2, 3, 3, 3]


def test_it_is_tried_again_though_nobody_looks_at_the_folders(shelf):
    file = shelf.put("m/1", "broken")
    shelf.refresh()
    shelf.put("m/2")
    file.write_text("broken")
    shelf.now = 10
    shelf.models.retry()
    assert (shelf.loaded, shelf.states()) == (["m/1", "m/1"], {1: "END"})


def test_when_its_files_change_the_tries_begin_anew(shelf):
    shelf.put("m/1", "broken")
    for shelf.now in (0, 10, 20, 30):
        shelf.refresh()
    (shelf.path / "m/1/variables").mkdir()
    for shelf.now in (31, 32, 41, 51, 61):
        shelf.refresh()
    assert len(shelf.loaded) == 3 + 3


def test_a_model_that_moves_is_served_from_its_old_folder_until_the_new_one_is_loaded(shelf):
    shelf.put("m/1")
    shelf.put("n/1")
    models = shelf.models = shelf.serving(dict)
    models.configure(shelf.config())
    seen = []
    shelf.during = lambda: seen.append((shelf.states(), models.find("m").path.parent.name))
    models.configure(shelf.config(folder="n"))
    assert seen == [({1: "AVAILABLE"}, "m")]
    assert models.find("m").path == shelf.path / "n/1"


def test_a_model_that_moves_to_a_folder_that_cannot_be_loaded_stays(shelf):
    shelf.put("m/1")
    shelf.put("n/1", "broken")
    models = shelf.models = shelf.serving(dict)
    models.configure(shelf.config())
    models.configure(shelf.config(folder="n"))
    assert models.find("m").path == shelf.path / "m/1"
    assert (shelf.refresh(times=3), shelf.loaded) == ({1: "AVAILABLE"}, ["m/1", "n/1"])
    assert "broken" in str(models.versions("m")[0].error)


def test_a_configured_model_stays_while_its_folder_is_away(shelf, logs):
    shelf.put("m/1")
    models = shelf.models = shelf.serving(dict)
    models.configure(shelf.config())
    (shelf.path / "m").rename(shelf.path / "away")
    assert shelf.refresh(times=5) == {1: "AVAILABLE"}
    assert sum("cannot be read" in each["event"] for each in logs) == 1
    (shelf.path / "away").rename(shelf.path / "m")
    shelf.remove("m/1")
    shelf.models.refresh()
    with pytest.raises(NotFound):
        models.find("m")


def test_versions_that_the_policy_no_longer_names_go_though_none_takes_their_place(shelf):
    shelf.put("m/1")
    models = shelf.models = shelf.serving(dict)
    models.configure(shelf.config())
    models.configure(shelf.config(policy=specific([2])))
    assert shelf.states() == {1: "END"}


def test_a_new_model_that_cannot_be_loaded_is_told_and_comes_when_it_can(shelf):
    shelf.put("m/1", "broken")
    models = shelf.models = shelf.serving(dict)
    with pytest.raises(ServingError, match="broken") as told:
        models.configure(shelf.config())
    assert told.value.status == "UNKNOWN"
    with pytest.raises(ServingError, match="no version"):
        models.configure({**shelf.config(), **shelf.config("n", "nowhere")})
    shelf.put("m/1", "mended")
    shelf.put("nowhere/4")
    models.refresh()
    assert (models.find("m").number, models.find("n").number) == (1, 4)


def test_the_start_waits_for_every_model(shelf):
    shelf.put("m/1")
    models = shelf.serving(dict)
    pauses = Pauses(lambda: shelf.put("n/1"), lambda: pytest.fail("all are there"))
    models.start({**shelf.config(), **shelf.config("n", "n")}, 5.0, pauses)
    assert (pauses.asked_s, models.find("n").number) == ([5.0], 1)


def test_the_start_fails_once_all_tries_have(shelf):
    shelf.put("m/1", "broken")

    def later() -> None:
        shelf.now += 10

    pauses = Pauses(later, later, later)
    with pytest.raises(ServingError, match="broken"):
        shelf.serving(dict).start(shelf.config(), 0, pauses)
    assert (len(shelf.loaded), pauses.asked_s) == (3, [10.0, 10.0])


def test_the_start_fails_for_a_model_without_a_version_if_nobody_looks_again(shelf):
    with pytest.raises(ServingError, match="no version"):
        shelf.serving(dict).start(shelf.config(), 0, Pauses())


def test_who_is_told_to_stop_waits_no_longer(shelf):
    shelf.serving(dict).start(shelf.config(), 1.0, Pauses())


class Pauses:
    """An event that is waited for: instead of time passing, something happens; then it is set."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.asked_s: list[float] = []
        self._happens = [*happens]

    def wait(self, timeout: float) -> bool:
        if not self._happens:
            return True
        self.asked_s.append(timeout)
        self._happens.pop(0)()
        return False


def test_one_unreadable_model_does_not_keep_the_others_away(shelf):
    shelf.put("a/1")
    shelf.put("b/1")
    shelf.during = _once(PermissionError("not yours"))
    shelf.models.refresh()
    assert shelf.states("b") == {1: "AVAILABLE"}
    shelf.models.refresh()
    assert shelf.states("a") == {1: "AVAILABLE"}


def _once(error: Exception) -> Callable[[], None]:
    waiting = [error]

    def during() -> None:
        if waiting:
            raise waiting.pop()

    return during


def test_what_is_no_model_is_told_of_once_and_to_who_asks_for_it(shelf, logs):
    shelf.put("m/1")
    told = f"{shelf.path}/bare has no version folder: move what is in it to {shelf.path}/bare/1"
    shelf.put("bare")
    models = shelf.serving(lambda: models_in(shelf.path), unserved=lambda: look(shelf.path).unserved)
    models.refresh()
    models.refresh()
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == [f"bare is not served: {told}"]
    for ask in (models.find, models.versions):
        with pytest.raises(NotFound, match=re.escape(told)):
            ask("bare")


def test_a_folder_that_cannot_be_read_keeps_no_other_model_from_being_served(tmp_path, monkeypatch):
    """Such as a volume's `lost+found`; who runs the tests may read it."""
    shelf = Shelf(tmp_path)
    shelf.put("m/1")
    shelf.put("lost+found/1")

    def refused(folder: Path) -> bool:
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return True

    monkeypatch.setattr("sluice.model_server.folders.is_model", refused)
    assert [*models_in(tmp_path)] == ["m"]
