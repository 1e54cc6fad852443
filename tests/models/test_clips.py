"""The clips network: what its data show and hide, how pictures make batches, and what it must reach."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from sluice_models import train
from sluice_models.clips import data, labelled, model
from tests.models.labelled_rows import read

DIRECTIONS = len(data.DIRECTIONS)

pytestmark = pytest.mark.timeout(900)  # the first test that needs the model trains it


@pytest.fixture(scope="module")
def folder(clips_dir) -> Path:
    return clips_dir / "clips" / "1"


@pytest.fixture(scope="module")
def original(folder) -> keras.Model:
    return keras.models.load_model(folder / "assets.extra" / "model.keras", compile=False)


def test_clips_are_pictures_and_the_same_for_the_same_seed():
    clips, directions = data.clips(5, 4, (3, 1))
    assert (clips.shape, clips.dtype, directions.shape) == ((5, 4, 32, 32, 3), np.float32, (5,))
    assert 0 <= clips.min() < clips.max() <= 1
    np.testing.assert_allclose(255 * clips, np.rint(255 * clips), atol=1e-4)
    for array, again, other in zip(
        (clips, directions), data.clips(5, 4, (3, 1)), data.clips(5, 4, (3, 2)), strict=True
    ):
        np.testing.assert_array_equal(array, again)
        assert (array != other).any()


def test_each_frame_of_a_clip_could_be_of_every_other_direction():
    """From another start, which is as likely, another direction arrives at the same picture."""
    random = np.random.default_rng(0)
    scenes = replace(data.scenes(random, 16), noise=np.zeros(16))
    clips = data.drawn(scenes, 24, random)
    for turn in range(1, DIRECTIONS):
        turned = replace(scenes, direction=(scenes.direction + turn) % DIRECTIONS)
        for frame in (0, 1, 7, 23):
            start = (scenes.start + frame * (scenes.velocity - turned.velocity)) % data.SIZE
            other = data.drawn(replace(turned, start=start), 24, random)
            np.testing.assert_allclose(other[:, frame], clips[:, frame], atol=1.01 / 255)
            assert np.abs(other[:, 23 - frame] - clips[:, 23 - frame]).max() > 0.1


def test_every_start_is_as_likely_as_any_other_in_each_direction():
    scenes = data.scenes(np.random.default_rng(0), 64_000)
    cells = (scenes.start // 8).astype(int)
    counts = np.zeros((DIRECTIONS, 4, 4))
    np.add.at(counts, (scenes.direction, *cells.T), 1)
    expected = 64_000 / counts.size
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_training_begins_in_the_middle_of_the_picture_and_ends_everywhere(monkeypatch):
    monkeypatch.setattr(model, "BATCHES_AN_EPOCH", 2)
    lessons = list(model.lessons(2))
    clips, directions, weights = lessons[0]
    middle, _ = data.clips(model.BATCH_SIZE, model.TRAINING_FRAMES, (model.SEED, 0), spread=0)
    np.testing.assert_array_equal(clips, middle)
    assert (np.abs(middle[:, 0, 0, 0] - middle[:, 0, 0, -1]) < 0.31).all()  # background in the corners
    assert directions.shape == weights.shape == clips.shape[:2]
    assert (weights[:, 0] == 0).all()
    assert (weights[:, 1:] == 1).all()
    batches = model.EPOCHS * model.BATCHES_AN_EPOCH
    *_, (last, _, _) = model.lessons(batches)
    everywhere, _ = data.clips(model.BATCH_SIZE, model.TRAINING_FRAMES, (model.SEED, batches - 1))
    np.testing.assert_array_equal(last, everywhere)


@pytest.mark.deep
def test_of_one_frame_there_is_nothing_to_be_learned():
    keras.utils.set_random_seed(model.SEED)
    assert abs(model.single_frame_accuracy() - 1 / DIRECTIONS) < 0.05


def test_it_tells_the_direction_of_clips_of_all_lengths(folder):
    report = json.loads((folder / "assets.extra" / "report.json").read_text())
    assert {*report["held_out_accuracy"]} == {"3", "6", "12", "24"}
    assert min(report["held_out_accuracy"].values()) >= 0.95
    assert report["chance"] == 1 / 8
    assert report["seed"] == model.SEED != data.HELD_OUT_SEED


def test_90_pictures_are_30_clips_of_3_and_one_batch(folder, serve):
    clips, directions = data.held_out(3)
    pictures = clips[:30].reshape(90, 32, 32, 3)
    batch = pictures.reshape(30, 3, 32, 32, 3)
    answer = serve(folder).call("serving_default", {"frames": batch})["probabilities"]
    assert answer.shape == (30, 8)
    assert np.mean(answer.argmax(-1) == directions[:30]) >= 0.9


def test_the_published_input_shape_does_not_even_build():
    frames = keras.layers.TimeDistributed(model.eye())
    assert frames(keras.Input((3, 32, 32, 3), batch_size=30)).shape == (30, 3, 32)
    with pytest.raises(ValueError, match="shape"):
        frames(keras.Input((90, 30, 32, 32, 3)))


def test_clips_of_other_lengths_share_a_batch_and_each_is_answered_as_by_keras_alone(folder, serve, original):
    lengths = np.array([3, 24, 1, 11, 6], np.int32)
    clips = data.held_out(24)[0][:5]
    padded = np.where((np.arange(24) < lengths[:, None])[..., None, None, None], clips, np.float32(0))
    answer = serve(folder).call("sequences", {"frames": padded, "lengths": lengths})["probabilities"]
    for row, length in enumerate(lengths):
        alone = keras.ops.convert_to_numpy(original(clips[row : row + 1, :length], training=False))
        np.testing.assert_allclose(answer[row], alone[0], atol=1e-5)


def test_a_camera_that_sends_one_frame_at_a_time_gets_the_answer_for_the_clip_so_far(folder, serve, original):
    clip = data.held_out(6)[0][:1]
    states = {name: np.zeros((1, model.UNITS), np.float32) for name in ("lstm/h", "lstm/c")}
    for frame in range(6):
        answer = serve(folder).call("step", {"frames": clip[:, frame]} | states)
        so_far = keras.ops.convert_to_numpy(original(clip[:, : frame + 1], training=False))
        np.testing.assert_allclose(answer["probabilities"], so_far, atol=1e-5)
        states = {name: answer[name] for name in states}


def test_the_contract_states_the_lengths_and_their_buckets(folder, serve, schema):
    contract = serve(folder).contract
    schema.validate(contract)
    default = contract["signatures"]["serving_default"]
    assert (default["kind"], default["calls"]) == ("sequences", "sequences")
    assert default["lengths"] == {"time": "lengths"}
    assert default["buckets"] == {"time": [3, 6, 12, 24]}
    frames = default["inputs"]["frames"]
    sizes = [(axis["name"], axis.get("size")) for axis in frames["axes"]]
    assert sizes == [("batch", None), ("time", None), ("height", 32), ("width", 32), ("channel", 3)]
    assert (frames["axes"][1]["ragged"], frames["pad"]) == (True, 0.0)
    assert default["outputs"]["probabilities"]["axes"][1]["size"] == DIRECTIONS


def test_the_data_are_written_as_a_table_arrays_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(labelled, "CLIPS", 3)
    file = train.data("clips", tmp_path / "data")
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 4 * data.HELD_OUT_CLIPS
    assert {row["direction"] for row in rows} == {*data.DIRECTIONS}
    with np.load(file.with_suffix(".npz")) as arrays:
        assert arrays["frames_24"].shape == (data.HELD_OUT_CLIPS, 24, 32, 32, 3)
        frames, directions = data.held_out(3)
        np.testing.assert_allclose(arrays["frames_3"] / 255, frames, atol=1e-6)
        np.testing.assert_array_equal(arrays["directions_3"], directions)
        third = np.argmax(arrays["directions_12"] == 2)
        shown = arrays["frames_12"][third, 1]
    picture = tf.io.decode_png(file.with_suffix(".png").read_bytes()).numpy()
    assert picture.shape == (8 * 36, 12 * 36, 3)
    np.testing.assert_array_equal(picture[2 * 36 + 2 : 3 * 36 - 2, 38:70], shown)
    request, rows = read(tmp_path / "data", "clips")
    assert (rows["frames"].shape, rows["frames"].dtype) == ((12, 24, 32, 32, 3), np.float32)
    assert rows["lengths"].tolist() == rows["group"].tolist() == [3] * 3 + [6] * 3 + [12] * 3 + [24] * 3
    assert request["task"] == "classification"
    assert request["options"] == {"classes": [*data.DIRECTIONS], "output": "probabilities"}
    for length in data.LENGTHS:
        of_length = rows["lengths"] == length
        clips, directions = data.held_out(length)
        np.testing.assert_array_equal(rows["frames"][of_length, :length], clips[:3])
        assert not rows["frames"][of_length, length:].any()
        assert rows["label"][of_length].tolist() == [data.DIRECTIONS[each] for each in directions[:3]]
