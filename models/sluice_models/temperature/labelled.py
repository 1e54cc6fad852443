"""Series as they are forecast in an evaluation: ten stretches, which a stateful model takes side by side."""

import numpy as np

from sluice_models.labelled import Labelled
from sluice_models.temperature.data import FIRST_YEAR, MONTHS_A_YEAR, Series, temperatures

STRETCHES = 10


def labelled() -> Labelled:
    """Windows of a year, and the month after each of their months, [rows, 12, 1] in °C.

    They come as Keras's `evaluate(batch_size=10)` takes them: row i goes on where row i - 10 ended. The groups are the
    decades that are forecast, of which 2001 to 2010 took no part in training.
    """
    series = temperatures()
    years = (len(series) - 1) // (STRETCHES * MONTHS_A_YEAR)
    months = years * STRETCHES * MONTHS_A_YEAR
    first = FIRST_YEAR + (len(series) - months) // MONTHS_A_YEAR  # of the years that are forecast
    session = np.tile(np.arange(STRETCHES, dtype=np.int32), years)
    year = first + session * years + np.arange(len(session)) // STRETCHES
    decade = year - (year - first) % 10
    return Labelled(
        {
            "temperature": _side_by_side(series[-months - 1 : -1]),
            "label": _side_by_side(series[-months:]),
            "session": session,
            "group": np.array([f"{begin}-{begin + 9}" for begin in decade]),
        },
        task="forecasting",
        options={"period": MONTHS_A_YEAR, "horizon": MONTHS_A_YEAR},
    )


def _side_by_side(months: Series) -> Series:
    return months.reshape(STRETCHES, -1, MONTHS_A_YEAR, 1).swapaxes(0, 1).reshape(-1, MONTHS_A_YEAR, 1)
