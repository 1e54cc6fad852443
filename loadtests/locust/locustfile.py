"""What Locust loads, at the repository's root: `locust -f loadtests/locust/locustfile.py --host http://127.0.0.1:8080`.

Here the users meet Locust's events: what is checked before the load, set for it, and made of it afterwards.
"""

import logging
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grpc.experimental.gevent import init_gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.locust import options
from loadtests.locust.load_shape import Load
from loadtests.locust.outcomes import WrongAnswers
from loadtests.locust.readiness import NotReady, Served
from loadtests.locust.shapes import SHAPES
from loadtests.locust.users.asking import LoadUser, loaded
from loadtests.locust.users.requests import GenerationUser, RecognitionUser, RowsUser, SequencesUser
from loadtests.locust.users.sessions import SessionUser
from loadtests.processes import python
from loadtests.traffic.library import file_of

__all__ = ["GenerationUser", "RecognitionUser", "RowsUser", "SequencesUser", "SessionUser"]
WRONG_USAGE, NOT_REACHABLE = 2, 3

log = logging.getLogger(__name__)
events.init_command_line_parser.add_listener(options.add)


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """In each process, before there is any load."""
    WrongAnswers(environment)
    if not isinstance(environment.runner, MasterRunner):
        init_gevent()  # after the fork of --processes, whose children could not use gRPC otherwise
    if not isinstance(environment.runner, WorkerRunner):
        _prepare(environment)


@events.test_start.add_listener
def configure(environment: Environment, **_: Any) -> None:
    """In each process, before each run: workers have the options of the master by now, which its web UI can change."""
    given: Any = environment.parsed_options
    LoadUser.folder = Path(given.traffic)
    LoadUser.think_s = given.wait
    LoadUser.grpc = options.grpc_address(environment.host or "", given.grpc)
    if not isinstance(environment.runner, MasterRunner):
        loaded(LoadUser.folder)  # now, and not while the first answers come


def _prepare(environment: Environment) -> None:
    given: Any = environment.parsed_options
    given.num_users = given.num_users or options.USERS
    given.spawn_rate = given.spawn_rate or options.SPAWN_RATE
    environment.host = (environment.host or options.HOST).rstrip("/")
    environment.available_shape_classes = {name: Load(shape) for name, shape in SHAPES.items()}
    if given.shape != options.NO_SHAPE:
        environment.shape_class = environment.available_shape_classes[given.shape]
        environment.shape_class.runner = environment.runner
    try:
        _choose_users(environment, given)
    except NotReady as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_REACHABLE)


def _choose_users(environment: Environment, given: Any) -> None:
    """Leave out the users that no tag asks for, and those that the gateway lacks something for.

    Raises:
        NotReady: the gateway is, or nobody is left; or somebody is left out and that is not wanted.
    """
    assert environment.host is not None
    served = Served(environment.host, options.grpc_address(environment.host, given.grpc))
    _make_traffic(given)
    asked = {user: tags for user in environment.user_classes if (tags := _tags(user, given))}
    lacks = {user: served.lack(user.models, tags) or _unknown(user.models, given) for user, tags in asked.items()}
    for user, lack in lacks.items():
        if lack and given.missing == options.FAIL:
            raise NotReady(f"{user.__name__} cannot run: {lack}")
        if lack:
            log.warning("%s is left out: %s", user.__name__, lack)
    environment.user_classes = [user for user, lack in lacks.items() if not lack]
    environment.available_user_classes = {user.__name__: user for user in environment.user_classes}
    if not environment.user_classes:
        raise NotReady(f"none of {', '.join(user.__name__ for user in lacks)} can run at {environment.host}")


def _tags(user: Any, given: Any) -> set[str]:
    """Of the tasks that --tags and --exclude-tags leave."""
    tags = [task.locust_tag_set for task in user.tasks]
    wanted, unwanted = set(given.tags or ()), set(given.exclude_tags or ())
    return set().union(*(each for each in tags if (not wanted or each & wanted) and not each & unwanted))


def _unknown(models: Iterable[str], given: Any) -> str:
    missing = [model for model in models if not file_of(Path(given.traffic), model).is_file()]
    return f"nobody knows what {missing[0]} should answer, which is not in {given.models}" if missing else ""


def _make_traffic(given: Any) -> None:
    """Have Keras answer the load where it has not; in a process of its own, as TensorFlow is large."""
    command = python("loadtests.traffic", "--models", given.models, "--out", given.traffic)
    done = subprocess.run(command, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        sys.exit(WRONG_USAGE)  # it has said why
