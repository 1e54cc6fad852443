"""What Locust loads, at the repository's root: `locust -f loadtests/locust/locustfile.py --host http://127.0.0.1:8080`.

Here the users meet Locust's events; `lead` says what is done before and after the load.
"""

import signal
from pathlib import Path
from typing import Any

import gevent
import greenlet
from grpc.experimental.gevent import init_gevent
from locust import events, runners, stats
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.locust import options
from loadtests.locust.lead import Lead
from loadtests.locust.outcomes import WrongAnswers
from loadtests.locust.recording import set_window
from loadtests.locust.users import *  # noqa: F403 - Locust takes the users from here
from loadtests.locust.users.asking import LoadUser, loaded

set_window(stats)
runners.HEARTBEAT_LIVENESS = 30  # seconds after which a worker counts as lost: its cores may be the gateway's, too
events.init_command_line_parser.add_listener(options.add)


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """In each process, before there is any load."""
    wrong = WrongAnswers(environment)
    if not isinstance(environment.runner, MasterRunner):
        init_gevent()  # after the fork of --processes, whose children could not use gRPC otherwise
    lead = None if isinstance(environment.runner, WorkerRunner) else Lead(environment, wrong)
    gevent.signal_handler(signal.SIGINT, _interrupt, greenlet.getcurrent(), lead)
    if environment.shape_class:  # until its end, Locust does not handle SIGTERM
        gevent.signal_handler(signal.SIGTERM, _interrupt, greenlet.getcurrent(), lead)


def _interrupt(main: greenlet.greenlet, lead: Lead | None) -> None:
    """Ctrl-C ends Locust's own greenlet; left to Python, it would end whichever user runs just then."""
    if lead:
        lead.interrupted = True
    gevent.get_hub().loop.run_callback(main.throw, KeyboardInterrupt)


@events.test_start.add_listener
def configure(environment: Environment, **_: Any) -> None:
    """In each process, before each run: workers have the options of the master by now, which its web UI can change."""
    given: Any = environment.parsed_options
    LoadUser.folder = Path(given.traffic)
    LoadUser.think_s = given.wait
    LoadUser.grpc = options.grpc_address(environment.host or "", given.grpc)
    if not isinstance(environment.runner, MasterRunner):
        loaded(LoadUser.folder)  # now, and not while the first answers come
