"""`python -m loadtests.soak`: mixed load for an hour; does the gateway's memory stay as it was, and every answer right?"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.processes import Child, Failed, python
from loadtests.serving import serving
from loadtests.soak import findings, page, samples
from loadtests.soak.findings import Finding
from loadtests.soak.killing import kill_times
from loadtests.soak.samples import GATEWAY
from loadtests.soak.watching import Watch, Watched
from sluice.cli.embedded import Embedded
from sluice.cli.errors import CommandError
from sluice.client import Client, SluiceError
