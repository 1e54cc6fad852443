"""What is measured of a vocabulary's size, with a few words, and what is made of it."""

import pytest

from loadtests.embedding import pages
from loadtests.embedding.cases import SIZES, TITLES, Case, bars, cases, measure
from sluice_models.language import network
from sluice_models.language.data import Text

# Keras 3.15 turns its tensors into arrays in a way that numpy 2.4 wants written differently.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def measured(name: str, words: int, *milliseconds: float) -> Case:
    return Case(name, words, lambda: None, list(milliseconds))


def all_measured(at_two_million: float) -> list[Case]:
    return [
        measured(name, words, 10.0, 20.0, 30.0 if words < SIZES[-1] else at_two_million)
        for words in SIZES
        for name in TITLES
    ]


def test_a_bar_is_the_median_of_the_rounds_ratios() -> None:
    cases = [
        measured(name, words, *times)
        for name in TITLES
        for words, times in zip(SIZES, [(1, 1, 1), (10, 20, 30), (11, 21, 90)])
    ]
    lazy, spread, answer = bars(cases)
    assert lazy.reached is not None
    assert (lazy.reached.least, lazy.reached.median, lazy.reached.most) == (1.05, 1.1, 3.0)
    assert lazy.holds and spread.holds and answer.holds
    assert "2,000,000 words / 200,000" in lazy.title


def test_sizes_take_turns_step_by_step() -> None:
    taken: list[int] = []
    name = next(iter(TITLES))
    turns = [Case(name, words, lambda words=words: taken.append(words)) for words in (1, 2)]
    measure(turns, rounds=2, steps=3)
    assert taken == [1, 1, 1, 2, 2, 2] + [1, 2] * 6  # a warm-up, then turns
    assert [len(case.milliseconds) for case in turns] == [2, 2]


def test_the_tables_and_the_picture_show_every_case(tmp_path) -> None:
    found = all_measured(33.0)
    costs, reached = pages.costs(found), pages.reached(bars(found))
    assert costs.row_count == len(TITLES)
    assert reached.row_count == 3
    pages.draw(found, tmp_path / "embedding.png")
    assert (tmp_path / "embedding.png").stat().st_size > 10_000


def test_accuracies_are_shown_side_by_side() -> None:
    table = pages.accuracies({"adam": {"sentences": 0.984}, "lazy_adam": {"sentences": 0.986}})
    assert [list(column.cells) for column in table.columns] == [["sentences"], ["98.4 %"], ["98.6 %"]]


def test_every_case_runs_on_the_network_that_is_served(tmp_path) -> None:
    texts = [Text("the und der " * 3 + str(i), "en", "en", "training") for i in range(network.BATCH_SIZE)]
    found = list(cases(50, texts, tmp_path))
    assert [case.name for case in found] == list(TITLES)
    measure(found, rounds=1, steps=1)
    assert all(case.spread.least > 0 for case in found)
