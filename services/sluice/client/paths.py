"""Paths of the gateway's HTTP API, and the model version that a caller names."""

from urllib.parse import quote

from sluice.client.arguments import check_name
from sluice.client.values import ModelSpec

_VERSION_LIMIT = (1 << 63) - 1


def model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def version_path(spec: ModelSpec) -> str:
    """Where a model is called, in the version or with the label that is asked for."""
    if spec.version is not None:
        return f"{model_path(spec.model)}/versions/{spec.version}"
    return model_path(spec.model) + ("" if spec.label is None else f"/labels/{quote(spec.label, safe='')}")


def session_path(id: str) -> str:
    return f"/v1/sessions/{quote(id, safe='')}"


def about_path(model: str, what: str, version: int | str | None) -> str:
    """The path of what is asked about a model version, or else the newest."""
    spec = spec_of(model, version, None)
    query = "" if spec.version is None else f"?version={spec.version}"
    return f"{model_path(model)}/{what}{query}"


def spec_of(model: str, version: int | str | None, label: str | None) -> ModelSpec:
    """The model version that a caller names.

    Raises:
        ValueError: no model's name; both a version and a label, or one of them that is none.
    """
    check_name("A model", model)
    if label is not None and (not isinstance(label, str) or not label):
        raise ValueError(f"A label is a name of one character or more; got {label!r:.80}. Without a label it is None.")
    if version is None:
        return ModelSpec(model, None, label)
    if label is not None:
        raise ValueError(f"Either a version or a label; got {version!r} and {label!r}.")
    if not str(version).isdecimal() or int(version) > _VERSION_LIMIT:
        raise ValueError(f"A version is a whole number of up to 63 bits; got {version!r}. A label is given by `label`.")
    return ModelSpec(model, int(version))
