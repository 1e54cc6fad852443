"""The cases of recognition: `:recognize` beside `:predict` on one model, by logits, by features, with a detector."""

from collections.abc import Iterator

from loadtests.bench.cases.case import Case, Measure, watched
from loadtests.bench.loads import wrk
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import Stage
from loadtests.bench.workloads.recognition import (
    LOGITS,
    METHODS,
    PREDICT_BODY,
    PREDICT_PATH,
    RECOGNIZE_PATH,
    RECOGNIZER,
    SCORES,
    recognize_body,
    write_calibrations,
)


def recognition_cases() -> Iterator[Case]:
    calls = {"predict": (PREDICT_PATH, PREDICT_BODY, LOGITS)}
    for kind, method in METHODS.items():
        calls[kind] = RECOGNIZE_PATH, recognize_body(method), SCORES if kind == "knn" else LOGITS
    for clients in (64, 1):
        for kind, (path, body, signature) in calls.items():
            title = "predict of a picture" if kind == "predict" else f"recognize by {METHODS[kind]}"
            people = "64 clients" if clients == 64 else "1 client"
            measure = _measure(path, body, signature, clients)
            yield Case(f"recognition-{kind}-{clients}", "recognition", f"{title}, HTTP, {people}", measure)


def _measure(path: str, body: bytes, signature: str, clients: int) -> Measure:
    def measure(stage: Stage, seconds: float) -> list[Sample]:
        calibrations = write_calibrations(stage.models.parent / "calibrations")
        gateway = stage.gateway("recognition", "--calibrations", str(calibrations))
        lane = RECOGNIZER, signature
        return [watched(stage, gateway, lane, lambda: wrk.call(gateway.address, path, body, clients, seconds))]

    return measure
