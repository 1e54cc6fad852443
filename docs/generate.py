"""Writes the generated parts of the documentation; with --check, only says whether they are up to date.

A generated part stands in its page between two marks; the rest of the page is written by people.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from graphlib import TopologicalSorter
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic_settings import BaseSettings

from sluice.evaluator.jobs.life_cycle import LIFE_CYCLE as EVALUATION_LIFE_CYCLE
from sluice.evaluator.settings import Settings as EvaluatorSettings
from sluice.gateway.core.decisions import Rule, Verdicts
from sluice.gateway.core.engine import BatchEnded
from sluice.gateway.grpc.life_cycle import LIFE_CYCLE as CALL_LIFE_CYCLE
from sluice.gateway.metrics.metrics import Metrics
from sluice.gateway.settings import Settings
from sluice.policy.batch import Batch, Lane, Ticket
from sluice.policy.batching import BatchingOptions, Dispatcher
from sluice.policy.contract import Recognition, Signature, State
from sluice.policy.errors import BackendError, BadRequest, BatchCollision, SluiceError, error_classes
from sluice.policy.recognition import Calibrated, Calibration, Recognized
from sluice.policy.scheduler import Scheduler
from sluice.policy.session import LIFE_CYCLE, Event
from sluice.policy.sessions import SessionOptions

DOCS = Path(__file__).parent
ROOT = DOCS.parent

ADVICE = {
    "bad_request": "Correct the request; the sentence names the field, the header, the path or the value.",
    "shape_mismatch": "Send the axes that the sentence names.",
    "dtype_mismatch": "Send numbers, text or booleans, as the sentence says.",
    "missing_input": "Add what the sentence names.",
    "unknown_input": "Use the names that the sentence lists.",
    "input_not_finite": "Send finite numbers; leave out a missing observation, or fill it in.",
    "empty_input": "Send one row, or one time step, or more.",
    "signature_not_found": "Use a name that the sentence lists; `GET /v1/models/{m}/contract` explains each.",
    "unsupported_by_model": "Export the model as the sentence says, or call `:predict`.",
    "model_not_found": "Look at `GET /v1/models`.",
    "version_not_found": "Leave the version out, or use one that the sentence lists.",
    "evaluation_not_found": "Look at `GET /v1/evaluations`, or begin another one.",
    "session_not_found": "Open a session; an id that a client chose is also unknown after the gateway has restarted.",
    "evaluation_conflict": "Look at its status and reason, `GET /v1/evaluations/{id}`; wait, or resume it.",
    "session_exists": "Go on with it by `if_exists`, close it, or choose another id.",
    "step_mismatch": "Compare with `current`: go on from there, or open a new session.",
    "session_conflict": "Wait until the session's steps are answered, then send the state again.",
    "state_incompatible": "Put it into a new session, or one of the same model and version, if that is served.",
    "not_calibrated": "Calibrate with `sluice calibrate`; `GET /v1/models/{m}/calibration` says why none is in use.",
    "session_closed": "Open a new session.",
    "session_expired": "Open a new session; ask for a longer `ttl_s`, or renew in time.",
    "session_evicted": "Open a new session; raise `sessions_per_model`.",
    "session_lost": "Open a new session.",
    "session_version_gone": "Open a new session, which begins on the newest version.",
    "body_too_large": "Send less at once, or raise `body_bytes`.",
    "sequence_too_long": "Send a scan in parts, or raise `scan_steps`; shorten the sequence, or raise its bounds.",
    "batch_too_large": "Split the request, or raise `queue_rows`.",
    "state_not_finite": "Check the input; the session can go on with another one.",
    "queue_full": "Wait as long as `Retry-After` says; see [batching](batching.md). In a stream: read faster.",
    "session_queue_full": "Await the answers before you send more.",
    "internal": "Report it, with the request id.",
    "backend_error": "Read the model server's own text in the sentence. The state is as it was before.",
    "backend_unavailable": "Wait as long as `Retry-After` says, then try again. The state is as it was before.",
    "sessions_full": "Close sessions, wait for some to expire, or raise `sessions_per_model`.",
    "permission_denied": "Ask the operator of the gateway: the call is switched off there.",
    "draining": "Ask another gateway, or this one once it has restarted.",
    "deadline_exceeded": "Allow more time with `Sluice-Timeout-Ms`. You can send a numbered step again as it is.",
}


def table(head: str, rows: Iterator[tuple[object, ...]]) -> str:
    """A Markdown table; `head` is its first line."""
    lines = [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([head, re.sub(r"[^|]+", "---", head), *lines])


def settings(kind: type[BaseSettings]) -> str:
    return table("| setting | flag | environment variable | default | meaning |", _settings(kind))


def _settings(kind: type[BaseSettings]) -> Iterator[tuple[object, ...]]:
    prefix = kind.model_config["env_prefix"]
    for name, field in kind.model_fields.items():
        flag = name.replace("_", "-")
        yield f"`{name}`", f"`--{flag}`", f"`{prefix}{name.upper()}`", _written(field.default), field.description


def _written(default: Any) -> str:
    """A default as one would write it after a flag."""
    if default is None or default == ():
        return "none"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def errors() -> str:
    return table("| code | HTTP | gRPC | when | what to do |", _errors())


def _errors() -> Iterator[tuple[object, ...]]:
    found = {error.code: error for error in error_classes(SluiceError)}
    found |= {each.code: each for each in (BadRequest, BackendError)}  # some below them have the same code
    for code, error in sorted(found.items(), key=lambda item: (item[1].http_status, item[0])):
        when = " ".join((error.__doc__ or "").split("\n\n")[0].split())
        yield f"`{code}`", error.http_status, error.grpc_status, when, ADVICE[code]


def metrics() -> str:
    return table("| metric | type | labels | what it counts |", _metrics())


def _metrics() -> Iterator[tuple[object, ...]]:
    for family in text_string_to_metric_families(_one_of_each().text().decode()):
        labels = [f"`{name}`" for name in family.samples[0].labels if name != "le"]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"`{name}`", family.type, ", ".join(labels), family.documentation


def _one_of_each() -> Metrics:
    """Metrics that have heard of one thing of each kind."""
    found, scheduler, lane = Metrics(), Scheduler(BatchingOptions(), SessionOptions()), Lane("m", 1, "step")
    found.watch(scheduler)
    found.watch_readiness(SimpleNamespace(ready=True), SimpleNamespace(troubles=lambda: {"m": ""}))
    step = Signature("step", "step", {}, {}, (State("h", "h", "h", "float32", (1,)),))
    session = scheduler.open("s", "m", 1, step, 0.0)
    scheduler.offer(Ticket(lane, {"x": np.zeros((1, 1))}, 1, inf), 0.0)
    found.request("step", "m", "ok")
    found.batch_ended(BatchEnded(Batch(lane, [Ticket(lane, {}, 1, 0.0)], 1, 1, 0.0), BackendError("said no"), 0.0))
    found.batch_ended(BatchEnded(Batch(lane, [Ticket(lane, {}, 1, 0.0)], 1, 1, 0.0), BatchCollision("met"), 0.0))
    bucket = lane._replace(bounds=(8,))
    found.batch_ended(BatchEnded(Batch(bucket, [], 1, 1, 0.0), None, 0.0))
    found.session_ended(session, Event.CLOSE)
    found.generating("m", 1)
    found.generated("m", 1, "end", 1)
    found.recognized(_verdicts())
    return found


def _verdicts() -> Verdicts:
    rows = Signature("rows", "rows", {}, {})
    calibration = Calibration("m", 1, "", 0.5, 1, "", "knn", 1.0, {"knn": Calibrated(np.zeros(1))})
    recognition, options = Recognition(rows, "logits", ("a",)), ("knn", 0.5, 1, False)
    rule = Rule("m", 1, recognition, calibration, *options, 0.0, ("knn",), ("knn",), "rows", ())
    return Verdicts(rule, [Recognized("a", True, "a", 0.0, 0.0, 1.0, None, (), own_p_values=(1.0,))])


def life_cycle(table: Mapping[Any, Mapping[Any, Any]], begin: str) -> str:
    """A life cycle, phase by event, as a Mermaid diagram. What begins it leads to the first phase."""
    lines = [f"    [*] --> {next(iter(table))}: {begin}"]
    for phase, following in table.items():
        lines += [f"    {phase} --> {after}: {event}" for event, after in following.items()]
        lines += [] if following else [f"    {phase} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def modules() -> str:
    """Every module of our own by room, in the words that it opens with."""
    folders = [{file.parent for file in _sources(top)} for top in ("services", "models", "loadtests")]
    return "\n\n".join(_room(folder) for each in folders for folder in sorted(each))


def _sources(top: str) -> list[Path]:
    """The Python files below a folder of the repository, apart from the generated messages."""
    return sorted(file for file in (ROOT / top).rglob("*.py") if "messages" not in file.parts)


def _room(folder: Path) -> str:
    name, readme = folder.relative_to(ROOT), folder / "README.md"
    link = f" ([README](../{readme.relative_to(ROOT)}))" if readme.exists() else ""
    rows = [(f"`{file.name}`", opening(file)) for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    parts = [f"## {name}", opening(folder / "__init__.py") + link, table("| module | |", iter(rows)) if rows else ""]
    return "\n\n".join(filter(None, parts))


def opening(file: Path) -> str:
    """The first paragraph of a module's docstring.

    Raises:
        ValueError: it has none.
    """
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else None
    if not text:
        raise ValueError(f"expected {file} to open with a docstring that says what it is for")
    return " ".join(text.split("\n\n")[0].split())


def floors() -> str:
    """The rooms of the package `sluice`, each above all that it imports; a circle raises `graphlib.CycleError`."""
    imports: dict[str, set[str]] = {}
    for file in _sources("services"):
        if file.name != "__init__.py":
            imports.setdefault(_room_of(_name_of(file)), set()).update(_imported_rooms(file))
    sorter = TopologicalSorter({room: below - {room} for room, below in imports.items()})
    sorter.prepare()
    lines: list[str] = []
    while ready := sorter.get_ready():
        lines.append(f"{len(lines) + 1:2}  {'   '.join(sorted(ready))}")
        sorter.done(*ready)
    return "\n".join(["```text", *reversed(lines), "```"])


def _imported_rooms(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sluice."):
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                module = name if (ROOT / "services" / f"{name.replace('.', '/')}.py").exists() else node.module
                yield _room_of(module.removeprefix("sluice."))


def _name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "services" / "sluice").with_suffix("").parts)


def _room_of(module: str) -> str:
    """Where a module lives: in a package; those beside the rooms of `gateway` and `cli` stand for themselves."""
    top, *rest = module.split(".")
    return "/".join([top, *rest[:1]] if top in {"gateway", "cli"} else [top])


# What the diagram of the connections has beside those that a NetworkPolicy of base allows.
BESIDE = (
    "tensorflow-serving --- models[(models)]",
    "gateway --- calibrations[(calibrations)]",
    "evaluator --- evaluations[(evaluations)]",
    "grafana --> prometheus -. metrics .-> gateway & evaluator & tensorflow-serving",
)


def connections() -> str:
    """Who may connect to whom, and to which port, by the NetworkPolicies of deploy/: a Mermaid diagram."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "deploy/kubernetes/base").glob("*.yaml"))]
    objects = [each for text in texts for each in yaml.safe_load_all(text) if "spec" in each]
    of = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in objects}
    lines = ["clients -- TLS --> edge"]
    for (kind, to), spec in of.items():
        for rule in spec.get("ingress", ()) if kind == "NetworkPolicy" else ():
            numbers = {each["name"]: each["port"] for each in of["Service", to]["ports"]}
            ports = ", ".join(f"{each['port']} {numbers[each['port']]}" for each in rule["ports"])
            for source in rule["from"]:
                who = source.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name", "edge")
                lines.append(f"{who} -- {ports} --> {to}")
    return "\n".join(["```mermaid", "flowchart LR", *(f"    {line}" for line in [*lines, *BESIDE]), "```"])


class Ran(NamedTuple):
    """One batch of the picture; times in milliseconds."""

    start: float
    end: float
    arrivals: list[float]


def batched(arrivals: list[float], options: BatchingOptions, run_ms: Callable[[int], float]) -> list[Ran]:
    """What the real dispatcher does in made-up time with one row at each of `arrivals` (milliseconds, increasing)."""
    dispatcher, lane, waiting = Dispatcher(options), Lane("m", 1, "step"), list(arrivals)
    running: list[tuple[float, Batch]] = []
    ran: list[Ran] = []
    while waiting or running:
        now = min([*waiting[:1], *(end for end, _ in running)])
        for end, batch in [each for each in running if each[0] == now]:
            running.remove((end, batch))
            dispatcher.finished(batch, now, succeeded=True)
        while waiting and waiting[0] == now:
            dispatcher.offer(Ticket(lane, {"x": np.zeros((1, 1))}, 1, waiting.pop(0) + 1000), now)
        while (taken := dispatcher.take(now)) is not None:
            running.append((now + run_ms(taken.rows), taken))
            ran.append(Ran(now, running[-1][0], [ticket.queued_at for ticket in taken.tickets]))
    return ran


def batching_picture() -> str:
    """Arrivals above, batches below: sparse requests run alone, dense ones together."""
    arrivals = [1.0, 8.0, 15.0, *(21.0 + 0.4 * i for i in range(60)), 52.0, 59.0]
    ran = batched(arrivals, BatchingOptions(in_flight=1), lambda rows: 4.0 if rows == 1 else 4.0 + rows / 16)
    return _drawn(ran, until_ms=66)


def _drawn(ran: list[Ran], until_ms: int) -> str:
    scale, left, top, bottom = 11.0, 16.0, 44.0, 120.0
    width, height = left * 2 + until_ms * scale, bottom + 66
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">',
        '<g font-family="sans-serif" font-size="12">',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        f'<text x="{left:g}" y="22">one row arrives</text>',
        f'<text x="{left:g}" y="{height - 8:g}">batches on the model server with their rows; milliseconds</text>',
    ]
    for batch in ran:
        x, w = left + batch.start * scale, (batch.end - batch.start) * scale
        for arrival in batch.arrivals:
            at = left + arrival * scale
            parts.append(f'<path d="M{at:.1f} {top - 12:g}V{top:g}L{x:.1f} {bottom:g}" fill="none" stroke="#d97706"/>')
        parts.append(f'<rect x="{x:.1f}" y="{bottom:g}" width="{w:.1f}" height="22" fill="#bfdbfe" stroke="#1d4ed8"/>')
        parts.append(f'<text x="{x + w / 2:.1f}" y="{bottom + 15:g}" text-anchor="middle">{len(batch.arrivals)}</text>')
    ticks = range(0, until_ms + 1, 10)
    parts += [f'<text x="{left + ms * scale:g}" y="{bottom + 38:g}" fill="#6b7280">{ms}</text>' for ms in ticks]
    return "\n".join([*parts, "</g>", "</svg>", ""])


# The boxes of the system's picture: left edge, width, colour, and what stands in each, heading first.
SYSTEM = (
    (10, 170, "#f3f4f6", "clients|curl, browsers|the Python client|TensorFlow Serving's|Triton's, KServe's"),
    (300, 220, "#fef3c7", "gateway|sessions: a state each|batches across clients|buckets for lengths|known or unknown"),
    (640, 190, "#bfdbfe", "model server|embedded (a child),|or TensorFlow Serving|runs SavedModels|remembers nothing"),
)
CALLS = ((184, 296, "HTTP, gRPC,|WebSocket"), (524, 636, "gRPC: Predict,|a batch a call"))


def system_picture() -> str:
    """Clients, the gateway with what it keeps, and the model server behind it."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 170">',
        '<g font-family="sans-serif" font-size="13">',
        '<rect width="840" height="170" fill="white"/>',
    ]
    for left, width, fill, text in SYSTEM:
        box = f'x="{left}" y="10" width="{width}" height="150" rx="6"'
        parts.append(f'<rect {box} fill="{fill}" stroke="#374151"/>')
        for row, line in enumerate(text.split("|")):
            weight = "normal" if row else "bold"
            parts.append(f'<text x="{left + 12}" y="{36 + 27 * row}" font-weight="{weight}">{line}</text>')
    for left, right, text in CALLS:
        parts.append(f'<path d="M{left} 85H{right}m-8 -5l8 5l-8 5" fill="none" stroke="#374151"/>')
        for row, line in enumerate(text.split("|")):
            parts.append(f'<text x="{(left + right) // 2}" y="{76 + 28 * row}" text-anchor="middle">{line}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


# page → name of the part → what writes it
PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "settings.md": {"settings": partial(settings, Settings)},
    "evaluator.md": {
        "settings": partial(settings, EvaluatorSettings),
        "life cycle": partial(life_cycle, EVALUATION_LIFE_CYCLE, "ask"),
    },
    "errors.md": {"errors": errors},
    "metrics.md": {"metrics": metrics},
    "sessions.md": {"life cycle": partial(life_cycle, LIFE_CYCLE, "open")},
    "adr/0009-grpc-on-h2.md": {"life cycle": partial(life_cycle, CALL_LIFE_CYCLE, "request")},
    "modules.md": {"modules": modules},
    "../ARCHITECTURE.md": {"floors": floors},
    "../deploy/README.md": {"connections": connections},
}
PICTURES = {"pictures/batching.svg": batching_picture, "pictures/system.svg": system_picture}


def generated() -> Iterator[tuple[Path, str]]:
    """Every page and picture that has generated parts, with the text that it should have."""
    for name, parts in PARTS.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        for part, write in parts.items():
            text = replaced(text, part, write())
        yield DOCS / name, text
    for name, draw in PICTURES.items():
        yield DOCS / name, draw()


def replaced(page: str, part: str, text: str) -> str:
    """`page` with `text` between the marks of `part`.

    Raises:
        ValueError: the page does not have these marks once.
    """
    begin, end = f"<!-- generated by docs/generate.py: {part} -->", f"<!-- end of {part} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"expected {begin!r} and {end!r} once each in the page")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def stale() -> list[Path]:
    """The files that differ from what they should be."""
    return [path for path, text in generated() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(*, check: bool) -> None:
    """Write what is stale, or say what is."""
    outdated = stale()
    if check and outdated:
        sys.exit(f"Out of date: {', '.join(path.name for path in outdated)}. Run `python docs/generate.py`.")
    for path, text in generated():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(check="--check" in sys.argv)
