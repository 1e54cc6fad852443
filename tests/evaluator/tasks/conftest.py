"""Property tests: the same examples every time, no clock, and nothing written into the repository."""

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.size import size

set_hypothesis_home_dir(tempfile.gettempdir() + "/sluice-hypothesis")
settings.register_profile(
    "tasks",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=size(30, 1000),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tasks")
