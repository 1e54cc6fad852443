"""The demo, where its gateway does not answer."""

from pathlib import Path

import httpx
import pytest

from sluice.cli.demo import command as demo
from sluice.cli.embedded import NotServed

REQUEST = httpx.Request("POST", "http://127.0.0.1:9/v1/models/digits_other:recognize")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ReadTimeout("timed out", request=REQUEST), f"{REQUEST.url} was not answered: timed out"),
        (httpx.ConnectError("", request=REQUEST), f"{REQUEST.url} was not answered: ConnectError"),
        (httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(500, text="Broken.")), "Broken."),
    ],
    ids=["time is over", "nobody is there", "refused"],
)
def test_pictures_that_are_not_answered_end_the_demo_with_the_reason(
    error: httpx.HTTPError, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(url: str, out: Path) -> None:
        raise error

    monkeypatch.setattr("sluice.cli.demo.recognition.ask", ask)
    with pytest.raises(NotServed, match=f"^{reason}$"):
        demo._recognized("http://127.0.0.1:9", tmp_path)
