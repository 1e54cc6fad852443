"""The held-out dates as an evaluation takes them."""

from sluice_models.dates.data import texts
from sluice_models.labelled import Labelled

ROWS = 2000  # of the 10,000 that are held out: as many as are evaluated in seconds


def labelled() -> Labelled:
    """Texts and their dates as ISO 8601; groups are the languages."""
    held_out = texts("held_out")[:ROWS]
    return Labelled(
        {
            "text": [written.text for written in held_out],
            "label": [written.iso for written in held_out],
            "group": [written.locale for written in held_out],
        },
        task="sequences",
        options={"output": "iso"},
    )
