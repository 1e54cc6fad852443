"""Lines of the log: for people, or an object each."""

import json
import logging
import sys

import pytest
import structlog

from sluice import stderr
from sluice.log import configure


@pytest.fixture
def written(monkeypatch):
    """What is written to standard error. Afterwards logs are as they were."""
    before, lines = structlog.get_config(), []
    handlers = logging.getLogger().handlers[:]
    monkeypatch.setattr(stderr, "write", lines.append)
    yield lines
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


def test_json_is_an_object_a_line_whatever_it_says(written):
    configure("json")
    with structlog.contextvars.bound_contextvars(request_id="a", trace_id="b"):
        structlog.get_logger().warning("two\nlines", model='"m"', versions=[1, 2], folder=sys)
        try:
            raise ValueError("why")
        except ValueError:
            structlog.get_logger().exception("failed")
    said, failed = map(json.loads, "".join(written).splitlines())
    assert said.pop("timestamp").endswith("Z")
    assert said.pop("folder") == repr(sys)
    names = {"request_id": "a", "trace_id": "b"}
    assert said == {"event": "two\nlines", "level": "warning", "model": '"m"', "versions": [1, 2], **names}
    assert failed["exception"].endswith("ValueError: why")


def test_text_has_the_same_words(written):
    configure()
    structlog.get_logger().info("ready", models=["a"])
    assert "ready" in "".join(written)
    assert "models=['a']" in "".join(written)
