"""A configuration file that may change while the server runs."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from sluice.model_server.config import Configs, configs_in, read_file
from sluice.model_server.errors import InvalidArgument, ServingError

log = structlog.get_logger()


class ConfigFile:
    """The models that a file names.

    Raises:
        InvalidArgument: it cannot be read, or what it says cannot be done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = read_file(path)
        self._said = ""
        try:
            self.configs = configs_in(self._content)
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}") from None

    def watch(self, every_s: float, configure: Callable[[Configs], None], stopping: threading.Event) -> None:
        """Every `every_s` seconds, until told to stop, read the file and configure what is new in it."""
        while not stopping.wait(every_s):
            self.read_again(configure)

    def read_again(self, configure: Callable[[Configs], None]) -> None:
        """Configure what is new in the file. If that cannot be used, the next time tries again; it is said once."""
        try:
            content = read_file(self._path)
            if content != self._content:
                configure(configs_in(content))
                self._content = content
            self._said = ""
        except ServingError as error:
            if error.message != self._said:
                log.warning("the model configuration cannot be used", file=str(self._path), reason=error.message)
            self._said = error.message
