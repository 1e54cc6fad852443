"""The bars: what is asked of the methods on one data set, and what the seeds have reached of it.

A figure counts by the median of the seeds. What no seed may do is counted, and the count asked for is 0.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from loadtests.bench.report.bars import Bar
from loadtests.bench.report.results import Spread
from loadtests.openset.table import BASELINE, KNOWNS, LEVEL, REJECTED, Measured, Runs, chosen

NEAR_ASKED, FAR_ASKED, ACCURACY_ASKED = 0.985, 0.995, 0.99

_SURE = 0.999


def bars(name: str, runs: Runs) -> list[Bar]:
    """Every bar of the data set `name`."""
    default = chosen(runs)
    as_good = sum(
        base["auroc_near"] >= own["auroc_near"] for base, own in zip(runs[BASELINE], runs[default], strict=True)
    )
    return [
        *_figure(name, runs, "auroc_near", "AUROC near", NEAR_ASKED),
        *_figure(name, runs, "auroc_far", "AUROC far", FAR_ASKED),
        _least(
            f"{name}: closed-set accuracy of {default}, the default",
            runs[default],
            "closed_set_accuracy",
            ACCURACY_ASKED,
        ),
        _none(f"{name}: seeds in which {BASELINE} is as good near as {default}", as_good),
        _none(f"{name}: methods and seeds that reject too many knowns at level 5 %", len(too_many(runs))),
    ]


def too_many(runs: Runs) -> list[str]:
    """Each method and seed, from 1, that rejects more knowns of the test than chance explains, and what it rejects."""
    return [
        f"{method}, seed {seed}: {100 * each[REJECTED]:.1f} % (at most {100 * bound(each[KNOWNS]):.1f} %)"
        for method, seeds in runs.items()
        for seed, each in enumerate(seeds, 1)
        if each[REJECTED] > bound(each[KNOWNS])
    ]


def bound(knowns: float) -> float:
    """The share of so many knowns that a method of the level exceeds at most once in a thousand times (binomial)."""
    return float(binom.ppf(_SURE, knowns, LEVEL) / knowns)


def markdown(name: str, runs: Runs) -> str:
    """The bars for a page, and below them who rejects too many."""
    lines = ["| asked | at least / at most | reached | least … most | holds |", "|---|---|---|---|---|"]
    for bar in bars(name, runs):
        if bar.reached is not None:
            asked = f"{'≥' if bar.at_least else '≤'} {bar.asked:g}"
            least, median, most = (f"{each:.4g}" for each in (bar.reached.least, bar.reached.median, bar.reached.most))
            lines.append(
                f"| {bar.title} | {asked} | {median} | {least} … {most} | {'yes' if bar.holds else '**no**'} |"
            )
    found = too_many(runs)
    return "\n".join([*lines, *(["", "Too many knowns: " + "; ".join(found) + "."] if found else [])])


def _figure(name: str, runs: Runs, key: str, heading: str, asked: float) -> list[Bar]:
    best = max(runs, key=lambda method: np.median([each[key] for each in runs[method]]))
    default = chosen(runs)
    return [
        _least(f"{name}: {heading} of {default}, the default", runs[default], key, asked),
        _least(f"{name}: {heading} of {best}, the best", runs[best], key, asked),
    ]


def _least(title: str, seeds: Sequence[Measured], key: str, asked: float) -> Bar:
    return Bar(title, asked, "", True, Spread.of([each[key] for each in seeds]))


def _none(title: str, count: int) -> Bar:
    return Bar(title, 0, "", False, Spread.of([count]))
