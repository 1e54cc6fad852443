"""The evaluator as it is served: what its jobs are done with, by its settings.

What takes long to import, statistics and plots, is imported when it is first needed, so that the evaluator starts soon.
"""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sluice.evaluator.document import Document
from sluice.evaluator.plan import version_compared
from sluice.evaluator.roots import roots_of
from sluice.evaluator.service import Parts
from sluice.evaluator.settings import Settings, SettingsError
from sluice.evaluator.uploads import Uploads

_ENGINE, _REPORTS = "sluice.evaluator.evaluation", "sluice.evaluator.report"


def parts_of(settings: Settings) -> Parts:
    """Raises: SettingsError: a data root or a protocol cannot be used."""
    try:
        roots = roots_of(settings.data_roots, settings.protocols)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    uploads = Uploads(settings.uploads, upload_bytes=settings.upload_bytes, uploads_bytes=settings.uploads_bytes)
    return Parts(evaluate, version_compared, {"md": _report("markdown"), "html": _report("html")}, roots, uploads)


async def evaluate(*args: Any, **options: Any) -> Document:
    """As `sluice.evaluator.evaluation.evaluate`."""
    engine = await asyncio.to_thread(import_module, _ENGINE)
    document: Document = await engine.evaluate(*args, **options)
    return document


def _report(name: str) -> Callable[[Document], str]:
    def report(document: Document) -> str:
        text: str = getattr(import_module(_REPORTS), name)(document)
        return text

    return report
