"""The pictures of a run, as PNG files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from loadtests.bench.cases.doors import CLIENTS
from loadtests.bench.cases.lengths import POLICIES, SHARES, case_name
from loadtests.bench.report.results import Outcome, Outcomes, Spread
from loadtests.bench.workloads.lengths import MIXES, Mix

mpl.use("Agg")

from matplotlib import pyplot as plt

_PROCESSES = {"gateway_cpu_s": "gateway", "model_server_cpu_s": "model server", "load_cpu_s": "load generator"}
_COLOURS = {"gateway_cpu_s": "tab:blue", "model_server_cpu_s": "tab:orange", "load_cpu_s": "tab:gray"}
# By case or group, of those that are drawn side by side.
_DOOR_COLOURS = {
    "echo-128": "tab:gray",
    "http-64": "tab:blue",
    "http-128": "tab:blue",
    "websocket": "tab:cyan",
    "grpc": "tab:green",
    "columnar": "tab:purple",
}
_WAY_COLOURS = {
    "longest": "tab:gray", "arrival": "tab:orange", "learned4": "tab:cyan", "learned8": "tab:blue",
    "scanned": "tab:green",
}  # fmt: skip
_NOT_STEPS = ("wide", "lengths", "generation")  # groups whose steps cost something else
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}  # behind labels
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "font.size": 11}


def draw(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Every picture for which something was measured; their files."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Outcomes, Any], bool]] = {
        "throughput": _throughput,
        "latency": _latency,
        "cpu": _cpu,
        "doors": _doors,
        **{f"lengths-{mix.name}": partial(_lengths, mix) for mix in MIXES},
    }
    drawn = []
    for name, picture in pictures.items():
        with mpl.rc_context(_STYLE):
            figure, axes = plt.subplots(figsize=(9, 5.4), layout="constrained")
            if picture(outcomes, axes):
                drawn.append(folder / f"{name}.png")
                figure.savefig(drawn[-1], dpi=120)
            plt.close(figure)
    return drawn


def _throughput(outcomes: Outcomes, axes: Any) -> bool:
    """Steps a second by clients, beside the echo."""
    lines = (("echo", "echo: the same HTTP and JSON, no model", "tab:gray", "s--"),
             ("http", "sessions over HTTP", "tab:blue", "o-"))  # fmt: skip
    drawn = [_line(axes, outcomes, group, "steps_per_s", label, colour, form) for group, label, colour, form in lines]
    if not any(drawn):
        return False
    axes.set(title="Throughput by clients", ylabel="steps a second", ylim=(0, None))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _finish_clients(axes)
    return True


def _latency(outcomes: Outcomes, axes: Any) -> bool:
    """p50 and p99 by clients."""
    drawn = [
        _line(axes, outcomes, "http", "p99_ms", "p99", "tab:red", "o-"),
        _line(axes, outcomes, "http", "p50_ms", "p50", "tab:blue", "o-"),
    ]
    if not any(drawn):
        return False
    axes.set(title="Latency of a step over HTTP", ylabel="milliseconds", yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _finish_clients(axes)
    return True


def _line(axes: Any, outcomes: Outcomes, group: str, figure: str, label: str, colour: str, form: str) -> bool:
    """A line of medians over clients, in a band from the least to the most."""
    found = {clients: spread for clients in CLIENTS if (spread := _spread(outcomes, f"{group}-{clients}", figure))}
    if not found:
        return False
    medians = [spread.median for spread in found.values()]
    least, most = [spread.least for spread in found.values()], [spread.most for spread in found.values()]
    axes.fill_between(list(found), least, most, color=colour, alpha=0.15, linewidth=0)
    axes.plot(list(found), medians, form, color=colour, label=label, linewidth=2)
    for clients, value in zip(found, medians, strict=True):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axes.annotate(
            text,
            (clients, value),
            (0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=colour,
            bbox=_PAPER,
        )
    return True


def _finish_clients(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(CLIENTS, [str(clients) for clients in CLIENTS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clients, each with one session and one step at a time")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)


def _cpu(outcomes: Outcomes, axes: Any) -> bool:
    """CPU seconds for 1,000 steps, stacked by process."""
    found = [
        outcome for outcome in outcomes.values() if outcome.figure("gateway_cpu_s") and outcome.group not in _NOT_STEPS
    ]
    if not found:
        return False
    lefts = [0.0] * len(found)
    for figure, name in _PROCESSES.items():
        widths = [outcome.figure(figure) or 0.0 for outcome in found]
        axes.barh([outcome.title for outcome in found], widths, left=lefts, color=_COLOURS[figure], label=name)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for place, total in enumerate(lefts):
        axes.annotate(f"{total:.3g}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(title="CPU time of 1,000 steps, by process", xlabel="seconds")
    _finish_bars(axes, len(found))
    axes.legend(loc="lower right", frameon=False)
    return True


def _doors(outcomes: Outcomes, axes: Any) -> bool:
    """Steps a second of every door, as a share of the bare model's."""
    limits = [outcomes[name].figure("steps_per_s") for name in outcomes if name.startswith("limit-") and "-128" in name]
    found = [
        outcome
        for outcome in outcomes.values()
        if (outcome.group in _DOOR_COLOURS or outcome.name in _DOOR_COLOURS) and outcome.figure("steps_per_s")
    ]
    limit = max((rate for rate in limits if rate), default=0.0)
    if not limit or not found:
        return False
    for outcome in found:
        share = _share(outcome, limit)
        colour = _DOOR_COLOURS.get(outcome.name) or _DOOR_COLOURS[outcome.group]
        axes.barh(outcome.title, share.median, color=colour, alpha=0.85)
        axes.plot((share.least, share.most), (outcome.title, outcome.title), color="black", linewidth=1.2, alpha=0.6)
        text = f"{share.median:.3g} %  ({outcome.figure('steps_per_s'):,.0f}/s)"
        axes.annotate(text, (share.most, outcome.title), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(title="Throughput by door, relative to the bare model", xlim=(0, 118))
    axes.set_xlabel(f"% of the bare model at batch 128, {limit:,.0f} steps a second")
    axes.axvline(100, color="tab:red", linestyle="--", linewidth=1.2)
    _finish_bars(axes, len(found))
    return True


def _lengths(mix: Mix, outcomes: Outcomes, axes: Any) -> bool:
    """Latency by offered load, p50 and p99 of every way to batch sequences, each up to 90 % of its own capacity."""
    drawn = False
    for way, colour in _WAY_COLOURS.items():
        outcome = outcomes.get(case_name(mix, way))
        for figure, form in (("p50_ms", "o-"), ("p99_ms", "s--")):
            found = [(_figure(outcome, share, "per_s"), _figure(outcome, share, figure)) for share in SHARES]
            points = [(rate, value) for rate, value in found if rate is not None and value is not None]
            if points:
                label = f"{POLICIES[way]}, {figure[:3]}"
                axes.plot(*zip(*points, strict=True), form, color=colour, label=label, linewidth=1.8, markersize=4)
                drawn = True
    if not drawn:
        return False
    axes.set(title=f"Latency of sequences: {mix.title}", ylabel="milliseconds from the scheduled send", yscale="log")
    axes.set(xlabel="offered sequences a second, Poisson: 30, 50, 70 and 90 % of each way's capacity", xlim=(0, None))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.figure.set_figheight(7.2)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=9)
    return True


def _figure(outcome: Outcome | None, share: int, figure: str) -> float | None:
    return outcome.figure(f"open{share}_{figure}") if outcome else None


def _share(outcome: Outcome, limit: float) -> Spread:
    spread = outcome.spread("steps_per_s")
    assert spread is not None
    return Spread(*(100 * value / limit for value in (spread.median, spread.least, spread.most)))


def _finish_bars(axes: Any, count: int) -> None:
    axes.figure.set_figheight(1.6 + 0.34 * count)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.margins(x=0.1)


def _spread(outcomes: Outcomes, name: str, figure: str) -> Spread | None:
    return outcomes[name].spread(figure) if name in outcomes else None
