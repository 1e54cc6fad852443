"""`python -m sluice.model_server`: the model server as the gateway starts it."""

import sys

from sluice.log import configure
from sluice.memory import keep_freed_memory
from sluice.model_server.main import main

configure()
keep_freed_memory()
sys.exit(main(sys.argv[1:]))
