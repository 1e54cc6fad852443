"""El Niño sea-surface temperatures, 1950 to 2010, month by month, and the split that never changes."""

import csv
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FIRST_YEAR = 1950
MONTHS_A_YEAR = 12
HELD_OUT_MONTHS = 120

Series = NDArray[np.float32]


def temperatures() -> Series:
    """The 732 monthly means in °C, oldest first, float32 [732]."""
    from statsmodels.datasets import elnino

    table = elnino.load_pandas().data.drop(columns="YEAR")
    return table.to_numpy(np.float32).ravel()


def split(series: Series) -> tuple[Series, Series]:
    """The training years, 1950 to 2000, and the held-out decade, 2001 to 2010; training never sees the second."""
    return series[:-HELD_OUT_MONTHS], series[-HELD_OUT_MONTHS:]


def month(index: int) -> date:
    """The first day of the month at `index` of the series."""
    years, months = divmod(index, MONTHS_A_YEAR)
    return date(FIRST_YEAR + years, months + 1, 1)


def held_out_error(forecasts: Series) -> float:
    """Mean absolute error in °C of the held-out months' forecasts, float32 [120]."""
    _, held_out = split(temperatures())
    return float(np.mean(np.abs(forecasts - held_out), dtype=np.float64))


def persistence() -> Series:
    """The held-out months' forecasts "as last month", in °C."""
    return _lagged(1)


def seasonal_naive() -> Series:
    """The held-out months' forecasts "as in the same month of last year", in °C."""
    return _lagged(MONTHS_A_YEAR)


def write_csv(out: Path) -> Path:
    """Write the series to OUT/temperature.csv: month, temperature in °C, and which part of the split it is in."""
    series = temperatures()
    training, _ = split(series)
    file = Path(out) / "temperature.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["month", "temperature", "split"])
        for i, value in enumerate(series):
            rows.writerow([f"{month(i):%Y-%m}", f"{value:.2f}", "training" if i < len(training) else "held_out"])
    return file


def _lagged(months: int) -> Series:
    return temperatures()[-HELD_OUT_MONTHS - months : -months]
