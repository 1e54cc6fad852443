"""The held-out dates as an evaluation takes them, for the whole rewriting and for the score."""

from sluice_models.dates import data
from sluice_models.dates.buckets import bucket_for, tokens
from sluice_models.labelled import Labelled


def labelled() -> Labelled:
    """Texts and their dates as ISO 8601; `target` is the date as the signature `score` takes it, with the end token.

    The groups are the languages; with the column `bucket` in their place, the buckets' bounds in bytes.
    """
    held_out = data.texts("held_out")
    dates = [written.iso for written in held_out]
    return Labelled(
        {
            "text": [written.text for written in held_out],
            "target": tokens(dates)[:, 1:].tolist(),
            "label": dates,
            "group": [written.locale for written in held_out],
            "bucket": [bucket_for(len(written.text.encode())) for written in held_out],
        },
        task="sequences",
        options={"output": "iso"},
    )
