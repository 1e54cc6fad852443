"""What every report of a document says, whatever its form: the tables around the task's own sections."""

from collections.abc import Iterator

from sluice.evaluator.document import Comparison, Document, Lines, Section, Table
from sluice.evaluator.report.numbers import change, change_interval, interval, metric, value, words

# The answers of one row at two batch sizes may differ by this much, relative to max(1, |y|), without being told.
_ROUNDING = 1e-5
_DIGITS = 8  # of metrics that ought to be the same


def verdict(document: Document) -> str:
    """In a sentence, whether the evaluation's gates let it pass; empty without gates."""
    if not document.gates:
        return ""
    failed = [gate for gate in document.gates if gate.failed]
    if failed:
        return f"Failed: {'; '.join(f'{gate.text} ({gate.found})' for gate in failed)}."
    return f"Passed: none of {len(document.gates)} conditions to fail holds."


def metrics(document: Document) -> Table:
    level = f"{100 * float(document.spec['level']):g} % interval"
    rows = tuple((words(name), metric(each), interval(each)) for name, each in document.metrics.items())
    noted = dict[str, list[str]]()
    for name, each in document.metrics.items():
        if each.note:
            noted.setdefault(each.note, []).append(words(name))
    text = " ".join(f"{', '.join(names)}: {note}" for note, names in noted.items())
    return Table(title="Metrics", text=text, columns=("metric", "value", level), rows=rows)


def sections(document: Document) -> Iterator[Section]:
    """All sections behind the metrics, in the order in which they are shown."""
    if document.gates:
        rows = tuple((gate.text, gate.found, "failed" if gate.failed else "passed") for gate in document.gates)
        yield Table(title="Conditions to fail", columns=("fails if", "found", "outcome"), rows=rows)
    if document.comparison is not None:
        yield from _comparison(document, document.comparison)
    yield from document.sections
    if document.batch_sizes:
        yield from _batch_sizes(document)


def _comparison(document: Document, compared: Comparison) -> Iterator[Section]:
    level = f"{100 * float(document.spec['level']):g} % interval"
    p_value = "" if compared.p_value is None else f" p = {value(compared.p_value)}."
    rows = tuple(
        (words(name), change(each), change_interval(each), _judged(each.value, each.better))
        for name, each in compared.differences.items()
    )
    yield Table(
        title=f"Version {document.version} less version {compared.version}",
        text=f"On the same rows, row by row. {compared.test}{p_value}",
        columns=("metric", "difference", level, ""),
        rows=rows,
    )
    yield from compared.sections


def _judged(difference: float | None, better: str) -> str:
    if not difference or better == "neither":
        return ""
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _batch_sizes(document: Document) -> Iterator[Section]:
    """The knob: what changes with it, time and memory, beside what does not."""
    speeds = {int(each["batch_size"] or 0): each for each in document.run.batch_sizes}
    changed = sorted({place for each in document.batch_sizes for place in each.changed_rows})
    worst = max(each.largest_difference for each in document.batch_sizes)
    agreed = (
        f"The largest difference of any row's output is {value(worst)}, relative to max(1, |y|): "
        + ("nothing but rounding. " if worst <= _ROUNDING else "more than rounding explains. ")
        + (f"The answer flips in row {', '.join(map(str, changed))}." if changed else "No row's answer flips.")
    )
    sizes = document.batch_sizes
    lines = [
        (words(name), *(value(each.metrics[name], share=shown.share, digits=_DIGITS) for each in sizes))
        for name, shown in document.metrics.items()
        if all(name in each.metrics for each in sizes)
    ]
    runs = [speeds.get(each.batch_size) for each in sizes]
    lines += [
        ("largest difference", *(value(each.largest_difference) for each in sizes)),
        ("rows/s", *(value(_of(run, "rows_per_s", 1)) for run in runs)),
        ("memory, MiB", *(value(_of(run, "memory_bytes", 2**20)) for run in runs)),
    ]
    yield Table(
        title="Batch size is only a knob",
        text=f"Everything measured again, in batches of exactly so many rows. {agreed}",
        columns=("rows in a batch", *(f"{each.batch_size:,}" for each in sizes)),
        rows=tuple(lines),
    )
    for name, unit, y in (("rows_per_s", 1, "rows/s"), ("memory_bytes", 2**20, "memory, MiB")):
        points = [(float(size), _of(each, name, unit)) for size, each in sorted(speeds.items())]
        known = tuple((size, found) for size, found in points if found is not None)
        if len(known) > 1:
            title = "Throughput by batch size" if name == "rows_per_s" else "Memory by batch size"
            yield Lines(title=title, x="rows in a batch", y=y, series={y: known}, log_x=True)


def _of(run: object, name: str, unit: float) -> float | None:
    found = run.get(name) if isinstance(run, dict) else None
    return None if found is None else float(found) / unit
