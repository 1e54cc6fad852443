"""Chooses, out of recorded answers of TensorFlow Serving, those that this server can be held to.

    python -m tests.golden.choose FOLDER

FOLDER holds the records. Written beside this file: requests, statuses and answers; of errors only that
they are errors. Left out by name or kind, with the reason: see LEFT_OUT.
"""

import base64
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.golden.replay import shapes

Record = dict[str, Any]

# Pattern of a record's name → why it is left out.
LEFT_OUT = {
    "concurrent_assert_failure": "who shares a batch with whom is chance",
}
_WITHOUT_NUMBERS = "lstm_.*"  # they depend on weights that are not recorded
FILES = ("rest", "cors", "prometheus", "batching")


def main(folder: Path) -> None:
    for name in FILES:
        _write(name, map(_rest, _records(folder / f"{name}.jsonl", LEFT_OUT)))
    _write("grpc", map(_grpc, _records(folder / "grpc.jsonl", LEFT_OUT)))


def _write(name: str, records: Iterable[Record]) -> None:
    lines = [json.dumps(record, ensure_ascii=True) for record in records]
    (Path(__file__).parent / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _records(path: Path, left_out: Iterable[str]) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if not any(re.fullmatch(pattern, record["name"]) for pattern in left_out):
            yield record


def _rest(record: Record) -> Record:
    kept = {key: record.get(key) for key in ("name", "method", "path", "request_headers", "request_body", "status")}
    kept["content_type"] = record["response_headers"].get("content-type")
    if "raw_request" in record:
        kept["raw_request"] = record["raw_request"]
    cors = {key: value for key, value in record["response_headers"].items() if key.startswith("access-control")}
    return kept | ({"cors": cors} if cors else {}) | _answered(record)


def _answered(record: Record) -> Record:
    body = record["response_body"]
    if record["status"] != 200 or not body:  # of errors the server's own page, or nothing, and no sentence
        return {} if body and not body.startswith("<HTML>") else {"page": body}
    if isinstance(body, dict):  # strings that are not UTF-8, of which the answers here hold what can be read
        body = base64.b64decode(body["base64"]).decode(errors="replace")
    answer = json.loads(body)
    return {"shapes": shapes(answer)} if re.fullmatch(_WITHOUT_NUMBERS, record["name"]) else {"response": answer}


def _grpc(record: Record) -> Record:
    return {key: record[key] for key in ("name", "rpc", "request", "code", "response")}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
