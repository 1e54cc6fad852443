"""Paths and methods that are nearly right: what is said of them, and with which status."""

import pytest

from tests.gateway.here import refused, refused_as_tf_serving

# What is asked, and what is said after "There is nothing at …; ".
MEANT = {
    "POST /v1/models/plain:predcit": "did you mean /v1/models/plain:predict?",
    "POST /v1/models/plain:PREDICT": "did you mean /v1/models/plain:predict?",
    "POST /v1/models/plain/versions/1:recognise": "did you mean /v1/models/plain/versions/1:recognize?",
    "POST /v1/models/plain:gnerate": "did you mean /v1/models/plain:generate?",
    "GET /v1/models/plain/contrat": "did you mean /v1/models/plain/contract?",
    "GET /v1/models/plain:contract": "it is /v1/models/plain/contract.",
    "GET /v1/models/plain/versions/1/contract": "it is /v1/models/plain/contract?version=1.",
    "POST /v1/models/sum/sessions:stpe": "did you mean /v1/models/sum/sessions:step?",
    "POST /v1/sessions/a:setp": "did you mean /v1/sessions/a:step?",
    "GET /v1/sessions/a/sate": "did you mean /v1/sessions/a/state?",
    "POST /v2/models/plain/infre": "did you mean /v2/models/plain/infer?",
    "POST /v2/models/plain:infer": "it is /v2/models/plain/infer.",
    "POST /v1/models/plain:predict?x=1": "it takes no query, and ?x=1 came.",
}
# What is asked, which methods the path takes, and with which status another one is refused there.
METHODS = {
    "GET /v1/models/plain:predict": ("POST", 400),
    "PUT /v1/models/plain/versions/1:predict": ("POST", 400),
    "DELETE /v1/models/plain:classify": ("POST", 400),
    "POST /v1/models/plain": ("GET", 400),
    "POST /v1/models/plain/metadata": ("GET", 400),
    "GET /v1/models/plain:recognize": ("POST", 405),
    "GET /v1/models/plain:generate": ("POST", 405),
    "DELETE /v1/models/sum/sessions": ("GET, HEAD, POST", 405),
    "POST /v1/sessions/a": ("DELETE, GET, HEAD", 405),
    "POST /v1/sessions/a/state": ("GET, HEAD, PUT", 405),
    "POST /readyz": ("GET, HEAD", 405),
}


@pytest.mark.parametrize("asked", MEANT)
async def test_a_path_that_is_mistyped_is_told_with_the_one_that_was_meant(here, asked):
    method, path = asked.split()
    response = await here.http.request(method, path)
    assert response.status_code in (400, 404)
    assert response.json()["error"] == f"There is nothing at {asked.partition('?')[0]}; {MEANT[asked]}"


@pytest.mark.parametrize("asked", METHODS)
async def test_another_method_is_told_which_ones_the_path_takes(here, asked):
    allowed, status = METHODS[asked]
    method, path = asked.split()
    response = await here.http.request(method, path)
    assert response.json()["error"] == f"This path takes {allowed}; got {method}."
    assert (response.status_code, response.headers["allow"]) == (status, allowed)
    assert response.headers["sluice-code"] == "bad_request"


async def test_a_verb_that_is_none_is_told_with_all_there_are(here):
    said = refused_as_tf_serving(await here.http.post("/v1/models/plain:foo"), 400, "bad_request")
    for each in (":predict", ":classify", ":regress", ":recognize", ":generate", "/metadata", "/contract", "/sessions"):
        assert each in said


@pytest.mark.parametrize("verb", [":predict", ":recognize", ":generate", ":classify", "", "/metadata"])
async def test_a_version_by_name_is_told_to_be_a_whole_number_on_every_path(here, verb):
    response = await here.http.request("POST" if verb[:1] == ":" else "GET", f"/v1/models/plain/versions/one{verb}")
    assert (response.status_code, response.headers["sluice-code"]) == (400, "bad_request")
    assert "ersion" in response.json()["error"]
    assert "whole number" in response.json()["error"]
    assert "one" in response.json()["error"]


async def test_a_version_by_name_is_told_to_be_a_whole_number_elsewhere(here):
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    for response in (
        await here.http.post("/v2/models/plain/versions/one/infer", json=body),
        await here.http.get("/v2/models/plain/versions/one"),
        await here.http.get("/v1/models/plain/contract?version=one"),
        await here.http.post("/v1/models/sum/sessions", json={"version": "one"}),
    ):
        assert response.status_code == 400
        assert "whole number" in response.json()["error"]
        assert "one" in response.json()["error"]
        assert "[0-9]" not in response.json()["error"]


@pytest.mark.parametrize(
    "path", ["/v1/sessions/a b:step", "/v1/sessions/a%2Fb:scan", "/v1/sessions/ä", "/v1/sessions/"]
)
async def test_an_id_in_a_path_is_told_by_which_characters_it_has(here, path):
    response = await here.http.post(path, json={"inputs": [1, 2]})
    said = refused(response, 404, "bad_request")["error"]
    if path != "/v1/sessions/":
        assert "A session's id has 1 to 128 of the characters A-Z a-z 0-9 . _ ~ -; " in said


@pytest.mark.parametrize("path", ["/v1/models/sum/sessions", "/v1/sessions/{}:fork"])
async def test_an_id_in_a_body_is_told_by_which_characters_it_has(here, path):
    path = path.format((await here.open()).id)
    for id in ("a/b", "", "a" * 129):
        said = refused(await here.http.post(path, json={"session": id}), 400, "bad_request")["error"]
        assert said.startswith(
            f'The request cannot be read: session takes 1 to 128 of the characters A-Z a-z 0-9 . _ ~ -; "{id[:79]}'
        )
