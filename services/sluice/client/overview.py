"""What a gateway says of itself and its models, out of its JSON. It knows no transports."""

from collections.abc import Mapping
from typing import Any

from sluice.client.values import AxisBuckets, Buckets, CalibrationFile, ServedModel, ServedVersion


def read_models(body: Mapping[str, Any]) -> list[ServedModel]:
    return [
        ServedModel(
            each["name"],
            [ServedVersion(int(own["version"]), own["state"], tuple(own["labels"])) for own in each["versions"]],
            tuple(each["kinds"]),
            each["summary"],
        )
        for each in body["models"]
    ]


def read_buckets(body: Mapping[str, Any]) -> Buckets:
    axes = {
        signature: {name: _axis(told) for name, told in own.items()} for signature, own in body["signatures"].items()
    }
    return Buckets(body["model"], int(body["version"]), axes, dict(body["chunks"]))


def read_calibration_files(body: Mapping[str, Any]) -> list[CalibrationFile]:
    return [CalibrationFile(each["file"], each["status"], each["reason"] or "") for each in body["files"]]


def _axis(told: Mapping[str, Any]) -> AxisBuckets:
    lengths = {int(length): float(count) for length, count in told["lengths"].items()}
    return AxisBuckets(tuple(told["bounds"]), told["learned"], lengths)
