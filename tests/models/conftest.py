"""What the tests of exported models share."""

from pathlib import Path

import pytest

from tests.export.served import KERAS_ARRAYS, opened, quick_verification, schema, serve

__all__ = ["opened", "quick_verification", "schema", "serve"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(KERAS_ARRAYS))
