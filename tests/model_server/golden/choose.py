"""Chooses, out of recorded answers of TensorFlow Serving, those that this server can be held to.

    python tests/model_server/golden/choose.py FOLDER

FOLDER holds rest.jsonl and grpc.jsonl. Written beside this file: requests, statuses and answers; of errors only that
they are errors. Left out by name or kind, with the reason: see LEFT_OUT.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# Pattern of a record's name → why it is left out.
LEFT_OUT = {
    "(classify|regress|multi)_.*": "Classify, Regress and MultiInference",
    "predict_on_(classify|regress)_sig.*": "their signatures",
    "reload_.*": "configuration",
    "lstm_.*": "needs the weights of a model that is not here",
    ".*label.*|predict_version_and_label": "labels",
    "predict_version_1|status_(percent_encoded|uppercase|version)|metadata_version|raw_absolute_uri": "older versions",
    "method_(options|trace).*|raw_.*": "CORS, and the HTTP server's own answers",
    "status_bad_percent": "a path that is no path; answered 404 here",
    "predict_dup_input_key_row": "of a key that comes twice the last one counts here",
    "bytes_b64_non_utf8_out_no_suffix": "recorded as bytes that are not UTF-8; replaced here",
}


def main(folder: Path) -> None:
    for name, chosen in (("rest", _rest), ("grpc", _grpc)):
        lines = [json.dumps(record, ensure_ascii=True) for record in _records(folder / f"{name}.jsonl", chosen)]
        (Path(__file__).parent / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _records(path: Path, chosen: Callable[[Record], Record]) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if not any(re.fullmatch(pattern, record["name"]) for pattern in LEFT_OUT):
            yield chosen(record)


def _rest(record: Record) -> Record:
    kept = {key: record[key] for key in ("name", "method", "path", "request_headers", "request_body", "status")}
    return kept | ({"response": json.loads(record["response_body"])} if record["status"] == 200 else {})


def _grpc(record: Record) -> Record:
    return {key: record[key] for key in ("name", "rpc", "request", "code", "response")}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
