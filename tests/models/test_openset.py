"""What the open-set models share: pictures that are nothing, output codes, the joint network."""

import keras
import numpy as np
import pytest

from sluice_models.openset import pictures
from sluice_models.openset.codes import UNITS, codes
from sluice_models.openset.networks import FEATURES, Recipe, trained


def random() -> np.random.Generator:
    return np.random.default_rng(8)


@pytest.mark.parametrize("draw", [pictures.scribbles, pictures.noise, pictures.waves, pictures.blobs])
def test_pictures_of_nothing_are_grey_and_all_different(draw):
    drawn = draw(random(), 20, 12)
    assert drawn.shape == (20, 12, 12)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(np.unique(drawn.reshape(20, -1), axis=0)) == 20
    np.testing.assert_array_equal(drawn, draw(random(), 20, 12))


def test_pictures_moved_by_nothing_stay_as_they_are():
    drawn = pictures.blobs(random(), 5, 9)
    np.testing.assert_allclose(pictures.moved(drawn, random(), 0, 0, 0), drawn, atol=1e-5)


def test_a_moved_picture_s_spot_is_no_farther_than_asked():
    drawn = np.zeros((200, 21, 21))
    drawn[:, 10, 10] = 1
    moved = pictures.moved(drawn, random(), 0, 3, 0)
    y, x = np.mgrid[:21, :21]
    centres = np.array([((each * y).sum() / each.sum(), (each * x).sum() / each.sum()) for each in moved])
    distances = np.abs(centres - 10)
    assert 2.5 < distances.max() <= 3.01
    turned = pictures.moved(np.tile(np.eye(21), (3, 1, 1)), random(), 10, 0, 0)
    assert (turned.sum(axis=(1, 2)) > 15).all()
    assert not np.allclose(turned, np.eye(21))


def test_what_leaves_a_picture_does_not_come_back_on_the_other_side():
    drawn = np.zeros((50, 9, 9))
    drawn[:, :, 0] = 1
    assert pictures.moved(drawn, random(), 0, 2, 0)[:, :, 4:].max() == 0


def known_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Class 0 is 0.25 everywhere, class 1 is 0.75."""
    labels = np.arange(10) % 2
    return np.broadcast_to(0.25 + 0.5 * labels[:, None, None], (10, 8, 8)).copy(), labels


def test_halves_are_of_two_classes():
    drawn = pictures.halves(random(), *known_pictures(), 30)
    assert [set(np.unique(each)) for each in drawn] == [{0.25, 0.75}] * 30


def test_overlaid_pictures_are_of_two_classes():
    assert (pictures.overlaid(random(), *known_pictures(), 30) == 0.75).all()


def test_shuffled_quarters_are_all_there_and_none_in_its_place():
    quarters = np.kron(np.arange(4).reshape(2, 2), np.ones((4, 4)))[None]
    for each in pictures.shuffled(random(), quarters, 10):
        corners = each[::4, ::4]
        assert sorted(corners.ravel()) == [0, 1, 2, 3]
        assert (corners != [[0, 1], [2, 3]]).all()


@pytest.mark.parametrize("classes", [2, 3, 6, 15])
def test_any_two_codes_differ_in_eight_places(classes):
    words = np.array(codes(classes))
    assert words.shape == (classes, UNITS)
    assert {*np.unique(words)} == {0, 1}
    for i in range(classes):
        for j in range(i):
            assert (words[i] != words[j]).sum() == 8


def squares() -> tuple[np.ndarray, np.ndarray]:
    """Dark ones and bright ones with a slope, [40, 8, 8, 1]."""
    labels = np.arange(40) % 2
    slope = np.linspace(0, 0.4, 8)[:, None] * np.ones(8)
    return np.where(labels[:, None, None], slope, 1 - slope).astype(np.float32)[..., None], labels


@pytest.fixture(scope="module")
def joined() -> keras.Model:
    recipe = Recipe(filters=(4,), strides=(2,), units=6, members=2, epochs=15, batch_size=8, scale=5.0)
    return trained("squares", *squares(), 2, recipe, 1)[0]


def test_the_joint_network_s_logits_are_the_mean_of_its_members(joined):
    x, labels = squares()
    answer = np.asarray(joined(x))
    assert (answer.argmax(axis=1) == labels).all()
    features = np.asarray(keras.Model(joined.inputs[0], joined.get_layer(FEATURES).output)(x))
    assert features.shape == (40, 12)
    np.testing.assert_allclose(np.linalg.norm(features.reshape(40, 2, 6), axis=2), 1, rtol=1e-5)


def test_the_same_seed_gives_the_same_network(joined):
    recipe = Recipe(filters=(4,), strides=(2,), units=6, members=2, epochs=15, batch_size=8, scale=5.0)
    again = trained("squares", *squares(), 2, recipe, 1)[0]
    np.testing.assert_allclose(np.asarray(again(squares()[0])), np.asarray(joined(squares()[0])), atol=1e-4)


def test_units_of_a_code_learn_each_its_own_bit():
    x, labels = squares()
    book = np.array(codes(2), np.float32)
    recipe = Recipe(filters=(4,), strides=(2,), units=6, members=1, epochs=25, batch_size=8)
    model, seconds = trained("squares", x, book[labels], UNITS, recipe, 1)
    assert ((np.asarray(model(x)) > 0) == book[labels]).mean() > 0.95
    assert seconds > 0
