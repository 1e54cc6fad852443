"""How much of a test is run: a size for every run, and the large one of `make test-deep`."""

import os

DEEP = bool(os.environ.get("TEST_DEEP"))


def size(usual: int, deep: int) -> int:
    """How many examples, seeds or steps: `usual` in every run, `deep` where the environment has `TEST_DEEP`."""
    return deep if DEEP else usual
