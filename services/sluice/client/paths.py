"""Paths of the gateway's HTTP API."""

from urllib.parse import quote

from sluice.client.values import ModelSpec


def model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def version_path(spec: ModelSpec) -> str:
    """Where a model is called, in the version or with the label that is asked for."""
    if spec.version is not None:
        return f"{model_path(spec.model)}/versions/{spec.version}"
    return model_path(spec.model) + ("" if spec.label is None else f"/labels/{quote(spec.label, safe='')}")


def session_path(id: str) -> str:
    return f"/v1/sessions/{quote(id, safe='')}"
