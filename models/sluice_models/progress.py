"""How training shows that it goes on: a bar in a terminal, plain lines elsewhere."""

from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINES = 10


class EpochProgress(keras.callbacks.Callback):
    """Shows epoch, loss and time left; ten lines in all where standard output is no terminal.

    Args:
        name: what is trained.
        epochs: how many epochs there will be.
    """

    def __init__(self, name: str, epochs: int) -> None:
        super().__init__()
        self._name = name
        self._epochs = epochs
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(f"training {name}", total=epochs, loss=float("nan"))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", float("nan"))
        self._bar.update(self._task, advance=1, loss=loss)
        if not self._console.is_terminal and (epoch + 1) % max(1, self._epochs // _LINES) == 0:
            print(f"training {self._name}: epoch {epoch + 1}/{self._epochs}, loss {loss:.4f}", flush=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.stop()
