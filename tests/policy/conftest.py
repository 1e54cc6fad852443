"""The same examples every time, no clock, and nothing written into the repository."""

import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.size import size

from .puppet import Puppet

set_hypothesis_home_dir(tempfile.gettempdir() + "/sluice-hypothesis")
settings.register_profile(
    "policy",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=size(100, 2000),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("policy")


@pytest.fixture
def puppet() -> Puppet:
    return Puppet()
