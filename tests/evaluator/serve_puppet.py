"""`sluice evaluator` with the puppet as its engine: each line of its input is a number of parts to do."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from sluice.cli.__main__ import main
from sluice.evaluator import parts
from sluice.evaluator.document import Document
from tests.evaluator.puppet import Puppet, parts_of


class Told(Puppet):
    def __init__(self) -> None:
        super().__init__()
        self._listening: asyncio.Task[None] | None = None

    async def evaluate(self, *args: Any, **more: Any) -> Document:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        return await super().evaluate(*args, **more)

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            self.do(int(line))


def serve(arguments: Sequence[str]) -> None:
    def with_puppet(settings: Any) -> Any:
        return parts_of(Told(), settings.uploads)

    parts.parts_of = with_puppet
    main(["evaluator", *arguments])


if __name__ == "__main__":
    serve(sys.argv[1:])
