"""`python -m sluice.model_server`: the model server as the gateway starts it."""

import sys

from sluice.signals import end_when_told


def main() -> int:
    end_when_told()
    from sluice.log import configure
    from sluice.memory import keep_freed_memory
    from sluice.model_server.main import main as run

    configure()
    keep_freed_memory()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
