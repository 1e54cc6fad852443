"""The digits networks: what their data hold, what is exported, and that letters and unknown digits are none of them."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from sluice.policy.measures import auroc
from sluice_models import train
from sluice_models.digits import data, model
from tests.cli.conftest import told
from tests.models import openset_contract
from tests.models.openset_contract import Served, threshold

# Training takes about a minute where nothing else runs.
slow = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def served(digits_dir, serve) -> Served:
    return Served(digits_dir, "digits", serve)


def test_the_parts_share_no_picture():
    openset_contract.parts_are_disjoint(data.load())


def test_pictures_are_grey_from_0_to_1_and_every_class_is_in_every_split():
    found = data.load()
    openset_contract.pictures_are_pictures(found)
    assert found.size == 8
    assert sum(len(split.labels) for split in (found.train, found.calibration, found.test)) == 1083
    assert len(found.near) == 714
    assert {*found.far} == {"letters", "noise", "photographs"}


def test_the_same_pictures_come_every_time():
    first = data.load()
    again = data.load.__wrapped__()
    np.testing.assert_array_equal(first.outliers, again.outliers)
    np.testing.assert_array_equal(first.far["photographs"], again.far["photographs"])
    np.testing.assert_array_equal(first.test.labels, again.test.labels)


def test_the_data_are_written_as_a_table_with_the_pictures_beside_it(tmp_path):
    file = train.data("digits", tmp_path)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    found = data.load()
    test = [row["class"] for row in rows if row["part"] == "test"]
    assert test == [found.classes[label] for label in found.test.labels]
    assert {row["class"] for row in rows if row["part"] == "near"} == {""}
    with np.load(file.with_suffix(".npz")) as arrays:
        np.testing.assert_allclose(arrays["test"] / 255, found.test.pictures[..., 0], atol=1e-6)
    openset_contract.rows_of_an_evaluation_are_the_test(tmp_path, "digits", found)


@slow
def test_the_contracts_name_classes_scores_and_the_detector(served, schema):
    openset_contract.contracts_are_whole(served, data.load(), schema)


@slow
@pytest.mark.parametrize("suffix", ["", "_other"])
def test_a_network_tells_the_known_digits(served, suffix):
    openset_contract.classes_are_told(served, data.load(), suffix)


@slow
@pytest.mark.deep
def test_the_network_with_output_codes_names_them_and_tells_the_known_digits(trained, serve, schema):
    served = Served(trained("digits"), "digits", serve)
    openset_contract.codes_are_named(served, data.load(), schema)
    openset_contract.classes_are_told(served, data.load(), "_codes")


@slow
def test_the_report_says_what_the_served_network_does(served):
    openset_contract.reports_are_true(served, data.load(), "")


@slow
def test_it_reaches_what_is_asked(digits_dir):
    report = json.loads((digits_dir / "digits" / "1" / "assets.extra" / "report.json").read_text())
    assert report["closed_set_accuracy"] >= 0.99
    assert report["auroc"]["knn"]["near"] >= 0.97
    assert report["auroc"]["knn"]["far"] >= 0.99


@slow
def test_the_letters_a_and_b_are_none_of_the_digits(served):
    bound = threshold(served, data.load(), "scores/knn", "_other")
    assert (served.recognize(data.letters("AB"), "_other")["scores/knn"] > bound).all()


@slow
@pytest.mark.parametrize("score", ["scores/knn", "scores/relative_mahalanobis"])
def test_strange_pictures_are_rejected_and_known_ones_accepted(served, score):
    found = data.load()
    bound = threshold(served, found, score, "")
    assert (served.recognize(found.test.pictures, "")[score] <= bound).mean() > 0.88
    for pictures in (found.near, *found.far.values()):
        assert (served.recognize(pictures, "")[score] > bound).mean() > 0.9


@slow
def test_the_detector_catches_what_it_never_saw(served):
    found = data.load()
    assert auroc(served.detected(found.test.pictures), served.detected(found.far["letters"])) > 0.97


def test_one_network_is_built_alone_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "RECIPE", replace(model.RECIPE, filters=(4,), strides=(2,), epochs=1))
    done = told("models", "build", "digits_detector", "--out", tmp_path)
    assert done.code == 0, done.error
    assert [each.name for each in tmp_path.iterdir()] == ["digits_detector"]


@pytest.mark.parametrize("name", ["digits_closed", "digits_", "temperature_other", "other"])
def test_a_network_that_there_is_not_is_refused_and_nothing_built(tmp_path, name):
    with pytest.raises(train.UnknownExample, match="expected one of the example models"):
        train.build(["digits_detector", name], tmp_path)
    assert [*tmp_path.iterdir()] == []
