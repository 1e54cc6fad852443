"""The puppet as a process of its own: `python -m tests.gateway.serve_puppet FOLDER` until its input ends."""

import asyncio
import sys
from pathlib import Path

from tests.gateway.puppet import Puppet


async def main() -> None:
    puppet = Puppet(Path(sys.argv[1]))
    await puppet.start()
    print(puppet.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await puppet.stop()


if __name__ == "__main__":
    asyncio.run(main())
