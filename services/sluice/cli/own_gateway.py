"""A model of a folder, and the detector that it names, served for one command by a gateway of its own.

It does not know what they are asked.
"""

import json
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from sluice.cli.embedded import Embedded, embedded
from sluice.cli.errors import CommandError
from sluice.cli.extras import need
from sluice.cli.model_folders import contract_file, versions_of
from sluice.missing import no_folder
from sluice.model_folder import look
from sluice.policy.contract_document import ContractError, parse_contract

_LAST_LINES = 12  # of the gateway's log, where it did not become ready


@contextmanager
def own_gateway(command: str, model: str, folder: Path, *flags: str) -> Iterator[Embedded]:
    """A gateway that serves FOLDER/MODEL until the end of the block, with these flags; says so on standard error.

    Raises:
        CommandError: there is no such model, or it cannot be served; or `command` lacks what that takes.
    """
    need(command, "gateway", "model-server", otherwise=", or name a gateway that runs: --url URL")
    names = _needed(model, folder)
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
        f"Starting a gateway and a model server for {' and '.join(names)}, from {folder} (--url asks one that runs)"
    )
    with tempfile.TemporaryDirectory(prefix="sluice-") as own:
        models, log = Path(own) / "models", Path(own) / "serve.log"
        models.mkdir()
        for name in names:
            (models / name).symlink_to((folder / name).resolve())
        with embedded(models, log, *flags) as gateway:
            try:
                gateway.until_ready()
            except CommandError as error:
                last = "".join(deque(log.read_text(errors="replace").splitlines(keepends=True), _LAST_LINES))
                raise CommandError(f"{model}: {error}. Its log ends with\n{last}", error.code) from None
            yield gateway


def _needed(model: str, folder: Path) -> Sequence[str]:
    """The model, and the detector that its contract names if the folder holds that too."""
    found = sorted(each.name for each in folder.glob("*") if versions_of(each))
    if model not in found:
        if reason := look(folder).unserved.get(model):
            raise CommandError(f"{model}: {reason}")
        none = "there are no models" if folder.is_dir() else no_folder(folder)
        there = f"there are {', '.join(found)}" if found else none
        raise CommandError(
            f"{model}: expected a model of this name in {folder}; {there}. Export it to {folder / model}/1 "
            "(`sluice export`, or `sluice models build` for an example), name another folder with --models, or a "
            "gateway that serves it with --url"
        )
    file = contract_file(versions_of(folder / model)[-1])
    try:
        recognition = parse_contract(json.loads(file.read_bytes())).recognition
    except (OSError, ValueError, ContractError):
        return (model,)  # what is wrong with a contract is told by the gateway
    detector = recognition and recognition.detector
    return (model, detector.model) if detector and detector.model in {*found} - {model} else (model,)
