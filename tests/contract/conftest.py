"""Logs are kept, not printed, and nothing is written into the repository."""

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from structlog.testing import capture_logs

set_hypothesis_home_dir(tempfile.gettempdir() + "/sluice-hypothesis")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
