"""Calibrations from a folder: taken at the start and when files change; what cannot be used changes nothing."""

import json
import os

import pytest

from tests.gateway.here import eventually, refused, running
from tests.gateway.sides import HUNDREDTHS, LEFT, document, put
from tests.gateway.test_recognize import recognize

RELOAD = "/v1/calibrations:reload"
ABOUT = "/v1/models/sides/calibration"
LOOSER = {"methods": {"knn": {"scores": [round(0.5 + each / 2, 3) for each in HUNDREDTHS]}}, "sets": {"scores": [0.5]}}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "calibrations"
    folder.mkdir()
    return folder


@pytest.fixture
async def here(puppet, folder):
    async with running(puppet, calibrations=folder, poll_s=3600) as here:
        await here.http.get("/v1/models/sides/contract")  # so that it is known
        yield here


async def reloaded(here):
    """What came of each file, by name."""
    response = await here.http.post(RELOAD)
    assert response.status_code == 200
    return {each["file"]: each for each in response.json()["files"]}


async def about(here, path=ABOUT):
    response = await here.http.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def threshold(here, path="/v1/models/sides:recognize"):
    response = await recognize(here, [LEFT], path=path)
    assert response.status_code == 200, response.text
    return response.json()["threshold"]


async def test_without_one_it_is_said_how_to_make_one(here, folder):
    error = refused(await recognize(here, [LEFT]), 409, "not_calibrated")["error"]
    assert "sluice calibrate sides" in error
    assert "sides-1.json" in error
    assert str(folder) not in error  # which is the operator's affair
    assert here.puppet.batches == []
    found = await about(here)
    assert (found["calibration"], found["reason"], found["files"]) == (None, error, [])


async def test_without_a_folder_it_is_said_how_to_give_one(puppet):
    async with running(puppet) as here:
        error = refused(await recognize(here, [LEFT]), 409, "not_calibrated")["error"]
        assert "Start the gateway with --calibrations DIR" in error
        assert (await here.http.post(RELOAD)).json() == {"folder": None, "reason": None, "files": []}


async def test_a_new_file_is_in_use_after_a_reload_and_a_changed_one_too(here, folder, logs):
    put(folder, document())
    assert await reloaded(here) == {
        "sides-1.json": {
            "file": "sides-1.json", "status": "in use", "reason": None, "model": "sides", "version": "1",
        }
    }  # fmt: skip
    assert await threshold(here) == 0.95
    put(folder, document(**LOOSER))
    assert await threshold(here) == 0.95
    await reloaded(here)
    assert await threshold(here) == 0.975
    assert [each["status"] for each in logs if each["event"] == "calibration"] == ["in use"]


async def test_what_is_in_use_is_shown_with_the_thresholds_at_its_level(here, folder):
    put(folder, document())
    await reloaded(here)
    found = (await about(here))["calibration"]
    assert found["methods"].pop("max_logit")["threshold"] == pytest.approx(-3.04, abs=0.02)
    assert found == {
        "file": "sides-1.json", "made_at": "2026-11-26T05:00:00Z", "level": 0.05, "rows": 99, "sha256": "0" * 64,
        "default_method": "knn", "temperature": 1.0, "sets": True,
        "methods": {
            "knn": {"rows": 99, "threshold": 0.95, "least_level": 0.01},
            "detector": {"rows": 99, "threshold": 0.95, "least_level": 0.01},
            "vim": {"rows": 2, "threshold": None, "least_level": pytest.approx(1 / 3)},
        },
    }  # fmt: skip
    refused(await here.http.get("/v1/models/sum/calibration"), 400, "unsupported_by_model")
    refused(await here.http.get("/v1/models/nosuch/calibration"), 404, "model_not_found")
    refused(await here.http.get(ABOUT, params={"version": "7"}), 404, "version_not_found")


async def test_files_that_change_are_read_again_without_being_told(puppet, folder):
    put(folder, document())
    async with running(puppet, calibrations=folder) as here:
        assert await threshold(here) == 0.95
        put(folder, document(**LOOSER))

        async def is_new():
            return await threshold(here) == 0.975

        await eventually(is_new)


UNUSABLE = {
    "cut off": (json.dumps(document()).encode()[:-40], "expected JSON"),
    "empty": (b"", "expected JSON"),
    "no text": (b"\xff\xfe", "expected JSON"),
    "a list": (b"[]", "expected an object"),
    "an unknown key": (document(colour="red"), "'colour'"),
    "a missing key": ({key: value for key, value in document().items() if key != "methods"}, "methods"),
    "of the future": (document(schema=2), "schema"),
    "another model": (document(model="glyphs"), "glyphs"),
    "another version": (document(version=2), "version 2"),
    "no such method": (document(methods={"knn": {"scores": HUNDREDTHS}, "she": {"scores": [1]}}), "she"),
    "not rising": (document(methods={"knn": {"scores": HUNDREDTHS[::-1]}}), "rise"),
    "other classes": (
        document(methods={"knn": {"scores": HUNDREDTHS, "class_scores": {"up": HUNDREDTHS}}}), "left, right, middle",
    ),
    "too few rows for its level": (document(level=0.001), "999"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_file_that_cannot_be_used_says_why_and_what_was_in_use_stays(here, folder, logs, name):
    put(folder, document())
    await reloaded(here)
    content, words = UNUSABLE[name]
    put(folder, content, "sides-1.json")
    for _ in range(2):
        file = (await reloaded(here))["sides-1.json"]
        assert (file["status"], words in file["reason"]) == ("refused", True), file
    assert [each["file"] for each in logs if each["event"] == "calibration refused"] == ["sides-1.json"]
    assert await threshold(here) == 0.95
    found = await about(here)
    assert (found["calibration"]["rows"], found["files"]) == (99, [file])
    put(folder, document(**LOOSER))
    assert (await reloaded(here))["sides-1.json"]["status"] == "in use"
    assert await threshold(here) == 0.975


async def test_a_file_that_never_could_be_used_is_the_reason_that_clients_get(here, folder):
    put(folder, document(schema=2), "sides-1.json")
    await reloaded(here)
    assert "schema" in refused(await recognize(here, [LEFT]), 409, "not_calibrated")["error"]


async def test_a_calibration_says_nothing_of_another_version(puppet, folder):
    put(folder, document())
    async with running(puppet, calibrations=folder) as here:
        assert await threshold(here) == 0.95
        puppet.versions["sides"] = [1, 2]

        async def is_there():
            return (await here.http.get("/v1/models/sides/contract", params={"version": "2"})).status_code == 200

        await eventually(is_there)
        error = refused(await recognize(here, [LEFT]), 409, "not_calibrated")["error"]
        assert "version 1" in error
        assert "sides-2.json" in error
        assert await threshold(here, "/v1/models/sides/versions/1:recognize") == 0.95
        put(folder, document(version=2, **LOOSER))
        await reloaded(here)
        assert await threshold(here) == 0.975
        assert await threshold(here, "/v1/models/sides/versions/1:recognize") == 0.95


async def test_a_calibration_of_a_version_to_come_waits_for_it_and_is_used_at_once(puppet, folder):
    put(folder, document())
    put(folder, document(version=2, **LOOSER))
    async with running(puppet, calibrations=folder, poll_s=0.05) as here:
        await here.http.get("/v1/models/sides/contract")
        file = (await reloaded(here))["sides-2.json"]
        assert (file["status"], "not served" in file["reason"]) == ("waiting", True)
        puppet.versions["sides"] = [2]

        async def is_there():
            return (await here.http.get("/v1/models/sides/contract", params={"version": "2"})).status_code == 200

        await eventually(is_there)
        assert await threshold(here) == 0.975
        assert (await reloaded(here))["sides-1.json"]["status"] == "waiting"


async def test_no_request_is_refused_while_a_version_comes_that_was_calibrated_before(puppet, folder):
    put(folder, document())
    async with running(puppet, calibrations=folder, poll_s=0.02) as here:
        assert await threshold(here) == 0.95
        put(folder, document(version=2, **LOOSER))
        assert (await reloaded(here))["sides-2.json"]["status"] == "waiting"
        for versions in ([1, 2], [2]):
            puppet.versions["sides"] = versions

            async def answers_by_the_new_one():
                return await threshold(here) == 0.975  # it is answered each time

            await eventually(answers_by_the_new_one)


@pytest.mark.parametrize("method", ["knn", "detector"])
async def test_who_asks_for_the_newest_gets_the_one_that_replaced_it_by_its_own_calibration(puppet, folder, method):
    put(folder, document())
    put(folder, document(version=2, level=0.25))
    async with running(puppet, calibrations=folder) as here:
        assert (await recognize(here, [LEFT], method=method)).json()["level"] == 0.05
        puppet.versions["sides"] = [2]
        body = (await recognize(here, [LEFT], method=method)).json()
        assert (body["version"], body["level"]) == ("2", 0.25)
        response = await recognize(here, [LEFT], path="/v1/models/sides/versions/1:recognize")
        refused(response, 404, "version_not_found")


async def test_a_version_that_replaces_another_and_is_not_calibrated_says_so(puppet, folder):
    put(folder, document())
    async with running(puppet, calibrations=folder, poll_s=3600) as here:
        await here.http.get("/v1/models/sides/contract")
        assert await threshold(here) == 0.95
        puppet.versions["sides"] = [2]
        assert "version 2" in refused(await recognize(here, [LEFT]), 409, "not_calibrated")["error"]


async def test_a_file_that_is_taken_away_is_in_use_no_more(here, folder):
    file = put(folder, document())
    await reloaded(here)
    file.unlink()
    assert await reloaded(here) == {}
    refused(await recognize(here, [LEFT]), 409, "not_calibrated")


async def test_a_folder_that_is_not_there_for_a_while_changes_nothing(here, folder, logs):
    put(folder, document())
    await reloaded(here)
    away = folder.rename(folder.with_name("away"))
    response = await here.http.post(RELOAD)
    assert response.json()["reason"]
    assert await threshold(here) == 0.95
    away.rename(folder)
    assert (await here.http.post(RELOAD)).json()["reason"] is None


async def test_what_is_no_file_is_refused_and_other_files_are_left_alone(here, folder):
    (folder / "sides-1.json").mkdir()
    os.mkfifo(folder / "sides-2.json")
    (folder / "sides-3.json").symlink_to(folder / "nowhere")
    (folder / "README.txt").write_text("for people")
    put(folder, document(), ".sides-9.json")
    found = await reloaded(here)
    assert {name: each["status"] for name, each in found.items()} == {
        f"sides-{version}.json": "refused" for version in (1, 2, 3)
    }


async def test_links_as_kubernetes_mounts_them_are_followed_and_swapped(here, folder):
    for name, content in (("one", document()), ("two", document(**LOOSER))):
        (folder / f"..{name}").mkdir()
        put(folder / f"..{name}", content)
    (folder / "..data").symlink_to("..one")
    (folder / "sides-1.json").symlink_to("..data/sides-1.json")
    await reloaded(here)
    assert await threshold(here) == 0.95
    (folder / "..new").symlink_to("..two")
    (folder / "..new").rename(folder / "..data")
    await reloaded(here)
    assert await threshold(here) == 0.975
