"""`GET /` for a browser: what this is, which models are ready, and where to look next. No script, nothing fetched."""

from collections.abc import Iterator
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.http.headers import accepts
from sluice.gateway.upstream.served import Model

_PATHS = {
    "/docs": "every call, to read and to try",
    "/readyz": "whether requests should come here, and what is wrong with which model",
    "/metrics": "for Prometheus",
    "/v1/models": "the models as JSON",
    "/openapi.json": "every call, for programs",
}
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sluice</title>
<style>
:root {{ --ink: #1d2733; --soft: #5b6876; --line: #d9dfe6; --page: #fff;
  --good: #1a7f4b; --bad: #b3261e; --link: #0b5cad }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6ebf0; --soft: #9aa7b4; --line: #2f3a46; --page: #12181f;
    --good: #4cc38a; --bad: #ff8a80; --link: #7db7ff }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 46rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; overflow-wrap: anywhere }}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem }}
h2 {{ font-size: 1rem; margin: 2.25rem 0 .5rem }}
p {{ margin: .25rem 0 }}
a {{ color: var(--link) }}
.soft {{ color: var(--soft) }}
.state {{ font-weight: 600; color: var(--good) }}
.state.not {{ color: var(--bad) }}
ul, dl {{ list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line) }}
li, dl > div {{ padding: .6rem 0; border-bottom: 1px solid var(--line) }}
li b {{ margin-right: .5rem }}
dl > div {{ display: grid; grid-template-columns: 9rem 1fr; gap: 0 1rem }}
dd {{ margin: 0 }}
@media (max-width: 30rem) {{ dl > div {{ grid-template-columns: 1fr }} }}
</style>
<h1>Sluice</h1>
<p class="soft">A gateway in front of TensorFlow Serving: sessions, sequences, generation, recognition, and rows batched
across clients. Version {version}.</p>
<p><span class="state{mark}">{state}</span>{reason}</p>
<h2>Models</h2>
{models}
<h2>Where to look</h2>
<dl>
{paths}
</dl>
</html>
"""


class ForBrowsers(Route):
    """A route for requests whose `Accept` prefers HTML; to all others there is nothing at its path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found, child = super().matches(scope)
        wanted = found is Match.FULL and accepts(b"text/html", scope["headers"])
        return (found, child) if wanted else (Match.NONE, {})


async def _home(request: Request) -> HTMLResponse:
    gateway: Gateway = request.app.state.gateway
    return HTMLResponse(page(gateway, request.app.version), headers=_SAFE)


def page(gateway: Gateway, version: str) -> str:
    """The page, as things are now."""
    reason = "the gateway is stopping" if gateway.draining else gateway.catalog.trouble()
    models = "\n".join(f"<li>{each}</li>" for model in gateway.catalog.listed() for each in _told(model))
    return _PAGE.format(
        version=escape(version),
        state="Not ready" if reason else "Ready",
        mark=" not" if reason else "",
        reason=f": {escape(reason)}." if reason else ".",
        models=f"<ul>\n{models}\n</ul>" if models else '<p class="soft">None yet.</p>',
        paths="\n".join(f'<div><dt><a href=".{p}">{p}</a></dt><dd>{what}</dd></div>' for p, what in _PATHS.items()),
    )


def _told(model: Model) -> Iterator[str]:
    """What is said of a model: its versions that can be called and their kinds, or what is wrong with it."""
    name, trouble = escape(model.name), model.trouble()
    served = model.newest
    if served is None:
        yield f'<b>{name}</b><span class="state not">not ready</span><p class="soft">{escape(trouble)}</p>'
        return
    numbers = ", ".join(map(str, sorted(model.served)))
    said: list[Any] = [served.summary, f"Offers {', '.join(served.kinds)}.", trouble]
    about = "".join(f'<p class="soft">{escape(each)}</p>' for each in said if each)
    yield f"<b>{name}</b>version{'s' * (len(model.served) > 1)} {numbers}{about}"


def routes() -> list[Route]:
    return [ForBrowsers("/", _home, methods=["GET"], name="home", include_in_schema=False)]
