"""The temperature forecaster: facts of its data, its batches, and what it must beat."""

import csv
import json

import numpy as np
import pytest

from sluice_models import train
from sluice_models.temperature import data, model
from tests.models.labelled_rows import read


def test_the_series_has_732_months_and_ends_in_2010():
    series = data.temperatures()
    assert series.shape == (732,)
    assert np.isfinite(series).all()
    assert f"{data.month(0):%Y-%m} {data.month(731):%Y-%m}" == "1950-01 2010-12"


def test_the_held_out_part_is_the_last_decade_every_time():
    training, held_out = data.split(data.temperatures())
    assert data.month(len(training)).isoformat() == "2001-01-01"
    assert len(held_out) == 120
    np.testing.assert_array_equal(np.concatenate([training, held_out]), data.temperatures())


def test_the_baselines_are_those_that_are_known():
    assert round(data.held_out_error(data.persistence()), 2) == 1.00
    assert round(data.held_out_error(data.seasonal_naive()), 2) == 0.91


def test_each_row_of_a_batch_continues_the_row_of_the_batch_before():
    series = np.arange(612, dtype=np.float32)
    inputs, targets = model.batches(series)
    batches = inputs.reshape(-1, model.STRETCHES, model.WINDOW_MONTHS)
    stretches = batches.swapaxes(0, 1).reshape(model.STRETCHES, -1)
    np.testing.assert_array_equal(np.diff(stretches), 1)
    np.testing.assert_array_equal(targets, inputs + 1)
    assert targets[-1, -1, 0] == series[-1]


def test_no_training_batch_holds_a_month_twice():
    inputs, _ = model.batches(np.arange(612, dtype=np.float32))
    assert len(np.unique(inputs)) == inputs.size


def test_the_forecaster_clearly_beats_both_baselines(temperature_dir):
    report = json.loads((temperature_dir / "temperature" / "1" / "assets.extra" / "report.json").read_text())
    errors = report["held_out_mae_celsius"]
    assert errors["model"] < 0.5 < errors["seasonal_naive"] < errors["persistence"]
    assert report["seed"] == model.SEED
    assert report["batch_size"] == model.STRETCHES


def test_served_step_by_step_to_one_client_it_forecasts_as_reported(temperature_dir, serve):
    folder = temperature_dir / "temperature" / "1"
    served = serve(folder)
    states = {name: np.zeros((1, model.UNITS), np.float32) for name in ("lstm/h", "lstm/c")}
    forecasts = []
    for value in data.temperatures()[:-1]:
        answer = served.call("step", {"temperature": [[value]]} | states)
        forecasts.append(answer["forecast"][0, 0])
        states = {name: answer[name] for name in states}
    reported = json.loads((folder / "assets.extra" / "report.json").read_text())["held_out_mae_celsius"]["model"]
    assert data.held_out_error(np.array(forecasts[-data.HELD_OUT_MONTHS :])) == pytest.approx(reported, abs=1e-3)


def test_the_contract_says_what_goes_in_and_out(temperature_dir, serve, schema):
    folder = temperature_dir / "temperature" / "1"
    contract = serve(folder).contract
    schema.validate(contract)
    assert contract == json.loads((folder / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
    step = contract["signatures"]["step"]
    assert step["inputs"]["temperature"]["unit"] == step["outputs"]["forecast"]["unit"] == "°C"
    assert [axis["name"] for axis in step["inputs"]["temperature"]["axes"]] == ["batch", "feature"]


def test_the_data_are_written_as_a_table(tmp_path):
    rows = list(csv.DictReader(train.data("temperature", tmp_path).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 732
    assert rows[0] == {"month": "1950-01", "temperature": "23.11", "split": "training"}
    assert sum(row["split"] == "held_out" for row in rows) == 120


def test_an_evaluation_takes_the_windows_as_the_stateful_model_does(tmp_path):
    train.data("temperature", tmp_path)
    request, rows = read(tmp_path, "temperature")
    inputs, targets = model.batches(data.temperatures())
    np.testing.assert_array_equal(rows["temperature"], inputs, strict=True)
    np.testing.assert_array_equal(rows["label"], targets, strict=True)
    assert rows["session"].tolist() == [*range(model.STRETCHES)] * (len(inputs) // model.STRETCHES)
    assert (request["task"], request["options"]) == ("forecasting", {"period": 12, "horizon": 12})


def test_the_groups_of_an_evaluation_are_the_decades_that_are_forecast(tmp_path):
    train.data("temperature", tmp_path)
    _, rows = read(tmp_path, "temperature")
    one_after_another = np.argsort(rows["session"], kind="stable")
    series, months = data.temperatures(), 720
    np.testing.assert_array_equal(rows["label"][one_after_another].ravel(), series[-months:])
    decades = np.repeat(rows["group"][one_after_another], model.WINDOW_MONTHS)
    for i, decade in enumerate(decades, len(series) - months):
        first, last = map(int, decade.split("-"))
        assert first <= data.month(i).year <= last == first + 9
    _, held_out = data.split(series)
    np.testing.assert_array_equal(rows["label"][one_after_another].ravel()[decades == "2001-2010"], held_out)


def test_an_unknown_example_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(train.UnknownExample, match="temperature"):
        train.build(["temprature"], tmp_path)
    assert not [*tmp_path.iterdir()]
