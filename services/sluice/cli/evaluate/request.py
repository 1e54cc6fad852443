"""Makes the evaluator's spec of a command's flags, and of the file that names an example's data and task.

It does not know what becomes of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.evaluator.plan import version_compared
from sluice.evaluator.spec import WHOLE, Spec, TaskName
from sluice.policy.errors import BadRequest

SUFFIX = ".evaluation.json"
DATA = Path("var/data")
_BATCH_SIZES = (1, 7, 32, 100, WHOLE)
_EXPECTED = {
    "data": "a path of at most 255 characters",
    "compare_to": "a version, a whole number from 0",
    "fail_if": '"accuracy < 0.97" and the like, of at most 255 characters',
}


@dataclass(frozen=True, slots=True)
class Flags:
    """What the flags say; None is what was not given."""

    data: Path | None = None
    task: str | None = None
    batch_sizes: str | None = None
    exact: bool = False
    compare_to: int | None = None
    fail_if: Sequence[str] = ()


def request_of(model: str, flags: Flags) -> tuple[Spec, Path]:
    """What is to be evaluated, and where its rows are.

    Raises:
        CommandError: there is no data, or a flag cannot be used.
    """
    file = _file(model, flags.data)
    fields: dict[str, Any] = {"model": model, "batch_sizes": _BATCH_SIZES}
    if file is None:
        assert flags.data is not None  # or there would be a file
        fields |= {"data": {"path": str(flags.data)}, "task": _task(flags.task)}
        data = flags.data
    else:
        fields |= _read(file)
        data = file.parent / fields["data"]["path"]
        fields |= {"model": model} | ({} if flags.task is None else {"task": _task(flags.task)})
    fields |= {
        name: value
        for name, value in {
            "batch_sizes": None if flags.batch_sizes is None else _sizes(flags.batch_sizes),
            "exact": flags.exact or None,
            "compare_to": flags.compare_to,
            "fail_if": tuple(flags.fail_if) or None,
        }.items()
        if value is not None
    }
    try:
        spec = Spec.model_validate(fields)
    except ValidationError as error:
        where = f"{file}: " if file else ""
        first = error.errors()[0]
        flag = str(first["loc"][0])
        if flag in _EXPECTED and getattr(flags, flag) and (flag != "data" or file is None):
            got = f"got {first['input']!r:.80}"
            raise CommandError(f"--{flag.replace('_', '-')}: expected {_EXPECTED[flag]}, {got}", WRONG_USAGE) from None
        raise CommandError(
            f"{where}{'.'.join(map(str, first['loc']))}: {first['msg']}; got {first['input']!r:.80}", WRONG_USAGE
        ) from None
    try:
        version_compared(spec)  # what is no condition must not end as one that holds
    except BadRequest as error:
        raise CommandError(error.message, WRONG_USAGE) from None
    return spec, data


def _file(model: str, data: Path | None) -> Path | None:
    """The file that says what to evaluate, where there is one: --data itself, or an example's own."""
    if data is not None:
        return data if data.name.endswith(SUFFIX) else None
    file = DATA / f"{model}{SUFFIX}"
    if file.is_file() or _written(model):
        return file
    raise CommandError(
        f"expected --data DATA, as {model} is none of the example models: a .npz, .csv, .jsonl or .parquet file, a "
        f"folder of them, or NAME{SUFFIX}, which names them and the task",
        WRONG_USAGE,
    )


def _written(model: str) -> bool:
    """Whether the model is an example, whose data is written now."""
    try:
        from sluice_models.train import EXAMPLES, data
    except ImportError:
        return False
    if model in EXAMPLES:
        data(model, DATA)
    return (DATA / f"{model}{SUFFIX}").is_file()


def _read(file: Path) -> Mapping[str, Any]:
    try:
        fields = json.loads(file.read_bytes())
        fields["data"]["path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{file}: expected the fields of an evaluation in JSON, with data.path, relative to its folder; {error!r}"
        ) from None
    return dict(fields)


def _task(task: str | None) -> str:
    if task is None or task not in get_args(TaskName):
        got = "" if task is None else f", got {task!r}"
        raise CommandError(f"--task: expected one of {', '.join(get_args(TaskName))}{got}", WRONG_USAGE)
    return task


def _sizes(text: str) -> tuple[int | str, ...]:
    sizes = [size.strip() for size in text.split(",") if size.strip()]
    if not all(size == WHOLE or (size.isdecimal() and int(size) > 0) for size in sizes):
        raise CommandError(f"--batch-sizes: expected 1,32,{WHOLE} and the like, got {text!r}", WRONG_USAGE)
    return tuple(size if size == WHOLE else int(size) for size in sizes)
