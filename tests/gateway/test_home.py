"""`GET /`: a page for browsers, and for all others what there is at any path that is none."""

import html
import re

import pytest

from tests.gateway.here import eventually, refused

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_is_told_which_models_are_ready_and_where_to_look(here):
    await here.open()  # the gateway looks at a model when it is first asked for
    response = await here.http.get("/", headers=BROWSER)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<span class="state">Ready</span>' in response.text
    assert re.search(r"<b>sum</b>version 1<p class=\"soft\">Adds up what a session sends.</p>", response.text)
    assert "Offers session, rows." in response.text or "Offers rows, session." in response.text
    links = re.findall(r'href="\.(/[^"]*)"', response.text)
    assert {"/docs", "/metrics", "/readyz"} <= {*links}
    for link in links:
        assert (await here.http.get(link)).status_code == 200


async def test_the_page_runs_nothing_and_fetches_nothing(here):
    page = (await here.http.get("/", headers=BROWSER)).text
    assert not re.search(r"<script|<img|<link|@import|url\(|src=|https?://", page)
    policy = (await here.http.get("/", headers=BROWSER)).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "text/html;q=0", "text/html;q=0.5,application/json"]
)
async def test_who_does_not_ask_for_html_is_told_that_there_is_nothing(here, accept):
    body = refused(await here.http.get("/", headers={} if accept is None else {"Accept": accept}), 404, "bad_request")
    assert body["error"] == "There is nothing at GET /; /docs shows all paths."
    refused(await here.http.post("/", headers=BROWSER), 404, "bad_request")


async def test_what_a_model_server_says_is_text_on_the_page(here, puppet):
    await here.open()
    wrong = "<script>alert('no')</script> & more"
    puppet.versions["sum"] = [1, 2]
    puppet.states["sum", 2] = ("END", wrong)
    page = await eventually(lambda: _page_with(here, "END"))
    assert html.escape(wrong) in page
    assert "<script" not in page


async def _page_with(here, text):
    page = (await here.http.get("/", headers=BROWSER)).text
    return page if text in page else ""


async def test_a_gateway_that_stops_says_so(here):
    here.gateway.draining = True
    page = (await here.http.get("/", headers=BROWSER)).text
    assert '<span class="state not">Not ready</span>: the gateway is stopping.' in page
