"""Which users take part in a load test: those that are asked for, whose model is served, and who know what is right."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from locust.env import Environment

from loadtests.locust.options import FAIL, grpc_address
from loadtests.locust.readiness import NotReady, Served
from loadtests.traffic.library import file_of, make

log = logging.getLogger(__name__)


def leave_out(environment: Environment) -> Mapping[str, str]:
    """Leave out users that no tag asks for, and those that the gateway lacks something for; these, and why.

    Raises:
        NotReady: the gateway is, or nobody is left; or somebody is left out and that is not wanted.
        NoTraffic: nobody knows what is right.
    """
    given: Any = environment.parsed_options
    assert environment.host is not None
    served = Served(environment.host, grpc_address(environment.host, given.grpc))
    make(given.models, given.traffic)
    asked = {user: tags for user in environment.user_classes if (tags := _tags(user, given))}
    lacks = {user: served.lack(user.models, tags) or _unknown(user.models, given) for user, tags in asked.items()}
    left_out = {user.__name__: lack for user, lack in lacks.items() if lack}
    for name, lack in left_out.items():
        if given.missing == FAIL:
            raise NotReady(f"{name} cannot run: {lack}")
        log.warning("%s is left out: %s", name, lack)
    environment.user_classes = [user for user, lack in lacks.items() if not lack]
    environment.available_user_classes = {user.__name__: user for user in environment.user_classes}
    if not environment.user_classes:
        raise NotReady(f"expected at least one user that can run against {environment.host}; there is none")
    return left_out


def _tags(user: Any, given: Any) -> set[str]:
    """Of the tasks that --tags and --exclude-tags leave."""
    tags = [task.locust_tag_set for task in user.tasks]
    wanted, unwanted = set(given.tags or ()), set(given.exclude_tags or ())
    return set().union(*(each for each in tags if (not wanted or each & wanted) and not each & unwanted))


def _unknown(models: Iterable[str], given: Any) -> str:
    missing = [model for model in models if not file_of(Path(given.traffic), model).is_file()]
    return f"nobody knows what {missing[0]} should answer, which is not in {given.models}" if missing else ""
