"""The dashboard's panels and their queries, and a picture of what a Prometheus says to them, without Grafana.

`python -m tests.deploy.dashboard http://127.0.0.1:9090 FILE.png --minutes 5`
"""

import argparse
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
_STEPS = 240  # of a picture


@dataclass(frozen=True)
class Query:
    """What a panel asks, as it stands there, and what its lines are called."""

    expr: str
    legend: str

    def with_all(self, window: str) -> str:
        """As Grafana asks it for all models; `window` is its rate interval."""
        return self.expr.replace("$__rate_interval", window).replace("$model", ".*")

    def name(self, labels: dict[str, str]) -> str:
        found = self.legend
        for label, value in labels.items():
            found = found.replace(f"{{{{{label}}}}}", value)
        return found


@dataclass(frozen=True)
class Panel:
    title: str
    kind: str
    unit: str
    place: dict[str, int]
    queries: tuple[Query, ...]


def panels() -> Iterator[Panel]:
    """All panels, rows' headings among them, which ask nothing."""
    for each in json.loads(DASHBOARD.read_text())["panels"]:
        queries = tuple(Query(target["expr"], target["legendFormat"]) for target in each.get("targets", ()))
        unit = each.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
        yield Panel(each["title"], each["type"], unit, each["gridPos"], queries)


def asked(prometheus: str, call: str, **parameters: object) -> list[dict[str, Any]]:
    """The series that Prometheus answers `query` or `query_range` with."""
    url = f"{prometheus}/api/v1/{call}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def draw(prometheus: str, file: Path, minutes: float, window: str) -> None:
    """A picture of all panels, each at its place."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    end, shown = time.time(), list(panels())
    rows = max(each.place["y"] + each.place["h"] for each in shown)
    figure = Figure(figsize=(20, rows * 0.42))
    for panel in shown:
        place = panel.place
        x, top, width, height = (place["x"] / 24, 1 - place["y"] / rows, place["w"] / 24, place["h"] / rows)
        if panel.kind == "row":
            figure.text(x + 0.005, top - 0.6 * height, panel.title, weight="bold", size=13)
            continue
        margin = 1.1 / rows
        axes = figure.add_axes((x + 0.03, top - height + margin, width - 0.04, height - 2 * margin))
        axes.set_title(f"{panel.title} [{panel.unit}]", size=9, loc="left")
        span = {"start": end - 60 * minutes, "end": end, "step": 60 * minutes / _STEPS}
        for query in panel.queries:
            if panel.kind == "stat":
                axes.axis("off")
                values = [series["value"][1] for series in asked(prometheus, "query", query=query.with_all(window))]
                axes.text(0.5, 0.4, f"{float(values[0]):.4g}" if values else "no data", size=20, ha="center")
                continue
            for series in asked(prometheus, "query_range", query=query.with_all(window), **span):
                times, values = zip(*series["values"], strict=True)
                line = [float(value) for value in values]
                axes.plot([each - end for each in times], line, linewidth=1, label=query.name(series["metric"]))
        if panel.kind != "stat":
            axes.set_xlim(-60 * minutes, 0)
            axes.set_ylim(bottom=0)
            axes.tick_params(labelsize=7)
            if axes.lines:
                axes.legend(fontsize=6, loc="upper left", ncols=2)
            else:
                axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="red")
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus", metavar="URL")
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--window", default="1m", help="Grafana's rate interval")
    given = parser.parse_args()
    draw(given.prometheus.rstrip("/"), given.file, given.minutes, given.window)
