"""What is loaded and let go as folders change, with a loader that only takes notes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.model_server.errors import NotFound, ServingError
from services.model_server.models import Models, folders_in


@dataclass
class Shelf:
    """A folder of models, the models read from it, and the versions that were loaded so far.

    A version whose `saved_model.pb` says "broken" cannot be loaded. `during` runs in the middle of each load.
    """

    path: Path
    loaded: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    models: Models = field(init=False)

    def __post_init__(self) -> None:
        self.models = Models(lambda: folders_in(self.path), self._load)

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
        if (path / "saved_model.pb").read_text() == "broken":
            raise ServingError("INVALID_ARGUMENT", f"{path} is broken")
        return path


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
    assert held.servable == shelf.path / "m/1"


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
    assert shelf.refresh(times=3) == {1: "AVAILABLE"}
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
    assert shelf.refresh() == {1: "AVAILABLE"}
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


def test_a_half_written_version_waits_for_its_graph(shelf):
    shelf.put("m/1")
    (shelf.path / "m/2/variables").mkdir(parents=True)
    assert shelf.refresh() == {1: "AVAILABLE"}
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
        shelf.models.versions("m")
    assert shelf.models.find("n").number == 1


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
