"""`python -m services.model_server`: the model server as the gateway starts it."""

import sys

from services.log import configure
from services.memory import keep_freed_memory
from services.model_server.main import main

configure()
keep_freed_memory()
sys.exit(main(sys.argv[1:]))
