"""The test's pictures of digits, and of what is none of them, as an evaluation takes them."""

from sluice_models.digits import data
from sluice_models.labelled import Labelled
from sluice_models.openset import labelled as openset


def labelled() -> Labelled:
    """All pictures of the test."""
    return openset.labelled(data.load())
