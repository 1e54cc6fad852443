"""TensorFlow Serving's REST paths, and what is none of them."""

import pytest

from sluice.policy.errors import BadRequest
from sluice.wire.rest_paths import (
    BadTarget,
    BadVersion,
    RestCall,
    WrongMethod,
    read_version,
    rest_call,
    version_by_name,
)

CALLS = {
    ("POST", "/v1/models/m:predict"): RestCall("predict", "m"),
    ("POST", "/v1/models/m/versions/007:classify"): RestCall("classify", "m", version=7),
    ("POST", "/v1/models/m/labels/a%20b:regress"): RestCall("regress", "m", label="a b"),
    ("GET", "/v1/models/m"): RestCall("status", "m"),
    ("GET", "/V1/MODELS/M/Versions/2/metadata"): RestCall("metadata", "M", version=2),
    ("GET", "/v1/models/%7Aoo"): RestCall("status", "zoo"),
    ("GET", "/v1/models/.."): RestCall("status", ".."),
    ("GET", "/v1/models/a%00b"): RestCall("status", "a\0b"),
    ("GET", "/v1/models/m%0A/METADATA"): RestCall("status", "m\n"),
    ("GET", "/v1/models/m?x=1"): RestCall("status", "m?x=1"),
    ("GET", "/v1/models/m#x?y"): RestCall("status", "m#x?y"),
    ("POST", "/v1/models/a%2Fb%3A:predict"): RestCall("predict", "a/b:"),
    ("POST", f"/v1/models/m/versions/{'0' * 5000}7:predict"): RestCall("predict", "m", version=7),
}


@pytest.mark.parametrize(("asked", "call"), CALLS.items())
def test_a_call_is_named_by_method_and_path(asked: tuple[str, str], call: RestCall) -> None:
    assert rest_call(*asked) == call


@pytest.mark.parametrize("target", ["/", "/foo", "/v1", "//v1/models/m", "/v2/models/m", "", "*", "/%761/models/m"])
def test_other_paths_name_nothing(target: str) -> None:
    assert rest_call("GET", target) is None


def test_a_version_has_up_to_63_bits() -> None:
    assert [read_version(text) for text in ("", "0", "007", f"{(1 << 63) - 1}")] == [None, 0, 7, (1 << 63) - 1]
    for text in (f"{1 << 63}", "9" * 5000, "-1", "one", "١", "1_000"):
        with pytest.raises(BadRequest, match="whole number of up to 63 bits; got '"):
            read_version(text)


MALFORMED = [
    ("POST", "/v1/models/m:PREDICT"), ("POST", "/v1/models/m:foo"), ("POST", "/v1/models/m:predict/x"),
    ("POST", "/v1/models/m:predict?x=1"), ("GET", "/v1/models/m:predict"), ("POST", "/v1/models/m"),
    ("HEAD", "/v1/models/m"), ("GET", "/v1/models"), ("GET", "/v1/models/"), ("GET", "/v1/models/m/"),
    ("POST", "/v1/models/:predict"), ("POST", "/v1/models/m/versions/1/labels/l:predict"),
    ("POST", "/v1/models/m%3Apredict"), ("POST", "/v1/models/m/versions/%31:predict"), ("GET", "/v1/%6Dodels/m"),
    ("GET", "/v1/models/m%0A/metadata/x"), ("POST", "/v1/models/m:predict?"), ("OPTIONS", "/v1/models/m"),
    ("GET", "/v1/models/m/versions/9223372036854775808"), ("GET", f"/v1/models/m/versions/{'9' * 5000}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), MALFORMED)
def test_what_is_below_v1_and_no_call_is_refused(method: str, target: str) -> None:
    with pytest.raises(BadRequest):
        rest_call(method, target)


@pytest.mark.parametrize(
    "target", ["/v1/models/m%zz", "/v1/models/m[1]", '/"', "/v1/models/h\u00e9", "/v1/models/a b", "/v1/models/m#x#y"]
)
def test_what_is_not_percent_encoded_cannot_be_read(target: str) -> None:
    with pytest.raises(BadTarget, match="percent-encoded"):
        rest_call("GET", target)


def test_a_version_that_is_too_large_is_told_from_a_path_that_is_no_call() -> None:
    with pytest.raises(BadVersion):
        rest_call("GET", f"/v1/models/m/versions/{1 << 63}")
    with pytest.raises(WrongMethod, match="takes GET; got HEAD"):
        rest_call("HEAD", f"/v1/models/m/versions/{1 << 63}")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_another_method_on_a_calls_path_is_told_with_the_right_one(method: str) -> None:
    with pytest.raises(WrongMethod, match=f"This path takes POST; got {method}.") as caught:
        rest_call(method, "/v1/models/m/versions/1:predict")
    assert caught.value.takes == "POST"


@pytest.mark.parametrize("named", ["one", "v1", "1a", "-1", "%31", "١"])
def test_a_version_by_name_is_told_to_be_a_whole_number(named: str) -> None:
    for target in (f"/v1/models/m/versions/{named}:predict", f"/v1/models/m/versions/{named}"):
        told = version_by_name(target)
        assert told is not None
        assert "A version is a whole number, as in /versions/1" in told.message
        assert repr(named) in told.message
    for fine in ("/v1/models/m/versions/1:predict", "/v1/models/m/versions/12", "/v1/models/versions:predict"):
        assert version_by_name(fine) is None
