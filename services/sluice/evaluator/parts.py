"""The evaluator as it is served: what its jobs are done with, by its settings."""

from sluice.evaluator import gates
from sluice.evaluator.evaluation import evaluate
from sluice.evaluator.report import html, markdown
from sluice.evaluator.roots import roots_of
from sluice.evaluator.service import Parts
from sluice.evaluator.settings import Settings, SettingsError
from sluice.evaluator.spec import Spec
from sluice.evaluator.uploads import Uploads


def parts_of(settings: Settings) -> Parts:
    """Raises: SettingsError: a data root or a protocol cannot be used."""
    try:
        roots = roots_of(settings.data_roots, settings.protocols)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    uploads = Uploads(
        settings.uploads, upload_bytes=settings.upload_bytes, uploads_bytes=settings.uploads_bytes
    )  # fmt: skip
    return Parts(evaluate, check, {"md": markdown, "html": html}, roots, uploads)


def check(spec: Spec) -> None:
    """Raises: BadRequest: a condition cannot be read, or conditions compare with several versions."""
    gates.version_compared(gates.parse(spec.fail_if), spec.compare_to)
