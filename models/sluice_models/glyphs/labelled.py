"""The test's pictures of letters, and of what is none of them, as an evaluation takes them."""

from sluice_models.glyphs import data
from sluice_models.labelled import Labelled
from sluice_models.openset import labelled as openset


def labelled() -> Labelled:
    """All pictures of the test."""
    return openset.labelled(data.load())
