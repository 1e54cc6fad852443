"""`python -m services.model_server`: the model server as the gateway starts it."""

import sys

from services.log import configure
from services.model_server.main import main

configure()
sys.exit(main(sys.argv[1:]))
