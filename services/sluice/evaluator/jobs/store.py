"""Evaluations and uploads in the database. Its calls block, each one transaction; any thread may make them.

It does not know what runs. Times are seconds since 1970, and given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

from sluice.evaluator.jobs.database import Database
from sluice.evaluator.jobs.kept import KeptParts
from sluice.evaluator.jobs.life_cycle import ENDED, LIFE_CYCLE, Event, Status
from sluice.evaluator.jobs.tables import Evaluation, Part, Upload
from sluice.evaluator.spec import Spec
from sluice.policy.errors import BadRequest, EvaluationConflict, EvaluationNotFound


class Store:
    """What it gives are rows that no transaction holds any more; only `Evaluation.document` is not among them."""

    def __init__(self, database: Database) -> None:
        self.hold = database.hold
        self._begin = sessionmaker(database.engine, expire_on_commit=False).begin

    def add(self, id: str, spec: Spec, now: float) -> Evaluation:
        """Queue an evaluation.

        Raises:
            BadRequest: there is no such upload.
        """
        with self._begin() as session:
            upload = spec.data.upload
            if upload is not None and session.get(Upload, upload, with_for_update=True) is None:
                raise BadRequest(
                    f"There is no upload {upload!r:.80}: one goes with its last evaluation, or after upload_kept_s "
                    "without any. Send the file again to POST /v1/evaluations/uploads."
                )
            made = Evaluation(id=id, model=spec.model, spec=spec.model_dump(mode="json"), upload=upload, created_at=now)
            session.add(made)
        return made

    def get(self, id: str) -> Evaluation:
        """Raises: EvaluationNotFound."""
        with self._begin() as session:
            return _found(session, id)

    def newest(self, limit: int, before: int | None = None, model: str | None = None) -> Sequence[Evaluation]:
        """The newest ones first, up to `limit`; of those made before the one of this number, and of this model."""
        asked = select(Evaluation).order_by(Evaluation.number.desc()).limit(limit)
        if before is not None:
            asked = asked.where(Evaluation.number < before)
        if model is not None:
            asked = asked.where(Evaluation.model == model)
        with self._begin() as session:
            return session.scalars(asked).all()

    def document(self, id: str) -> Mapping[str, Any]:
        """What came of an evaluation.

        Raises:
            EvaluationNotFound, EvaluationConflict: nothing yet, or nothing ever.
        """
        with self._begin() as session:
            found = _found(session, id)
            if found.document is not None:
                return found.document
        why = f" {found.reason}" if found.reason else ""
        raise EvaluationConflict(
            f"Evaluation {id!r} has no report; its status is {found.status!r}.{why}", status=found.status
        )

    def start_next(self, now: float) -> Evaluation | None:
        """Start the one that has been queued for longest; None: none is."""
        asked = select(Evaluation).where(Evaluation.status == Status.QUEUED).order_by(Evaluation.number).limit(1)
        with self._begin() as session:
            found = session.scalars(asked.with_for_update()).first()
            if found is not None:
                _move(session, found, Event.START, now)
            return found

    def move(self, id: str, event: Event, now: float, **facts: Any) -> Evaluation:
        """Let an event happen to an evaluation, and write down facts with it.

        Raises:
            EvaluationNotFound, EvaluationConflict: it cannot happen; nothing has changed.
        """
        with self._begin() as session:
            found = _found(session, id, lock=True)
            _move(session, found, event, now)
            for name, fact in facts.items():
                setattr(found, name, fact)
            return found

    def restart(self, now: float) -> int:
        """Queue again what was running when the evaluator ended; how many those are."""
        with self._begin() as session:
            found = session.scalars(select(Evaluation).where(Evaluation.status == Status.RUNNING)).all()
            for each in found:
                _move(session, each, Event.RESTART, now)
            return len(found)

    def remove(self, id: str) -> Upload | None:
        """Forget an evaluation, and the upload that it was the last one of, which is given.

        Raises:
            EvaluationNotFound.
        """
        with self._begin() as session:
            found = _found(session, id, lock=True)
            session.delete(found)
            session.flush()
            upload = found.upload and session.get(Upload, found.upload, with_for_update=True)
            if not upload or session.scalar(select(func.count()).where(Evaluation.upload == upload.id)):
                return None
            session.delete(upload)
            return upload

    def add_upload(self, upload: Upload) -> None:
        with self._begin() as session:
            session.add(upload)

    def upload(self, id: str) -> Upload | None:
        with self._begin() as session:
            return session.get(Upload, id)

    def upload_paths(self) -> set[str]:
        with self._begin() as session:
            return set(session.scalars(select(Upload.path)))

    def remove_unused(self, before: float) -> Sequence[Upload]:
        """Forget the uploads from before this time that no evaluation is of; gives them."""
        used = select(Evaluation.number).where(Evaluation.upload == Upload.id).exists()
        with self._begin() as session:
            found = session.scalars(select(Upload).where(Upload.created_at < before, ~used).with_for_update()).all()
            for each in found:
                session.delete(each)
            return found

    def counts(self) -> Mapping[Status, int]:
        """How many evaluations there are of each status."""
        with self._begin() as session:
            found = session.execute(select(Evaluation.status, func.count()).group_by(Evaluation.status)).all()
        return dict.fromkeys(Status, 0) | {Status(status): count for status, count in found}

    def kept(self, evaluation: Evaluation) -> KeptParts:
        return KeptParts(self._begin, evaluation.number)


def _found(session: Session, id: str, *, lock: bool = False) -> Evaluation:
    asked = select(Evaluation).where(Evaluation.id == id)
    found = session.scalars(asked.with_for_update() if lock else asked).first()
    if found is None:
        raise EvaluationNotFound(f"There is no evaluation {id!r:.80}; GET /v1/evaluations lists them.")
    return found


def _move(session: Session, evaluation: Evaluation, event: Event, now: float) -> None:
    status = LIFE_CYCLE[Status(evaluation.status)].get(event)
    if status is None:
        raise EvaluationConflict(
            f"Evaluation {evaluation.id!r} cannot {event}; its status is {evaluation.status!r}.",
            status=evaluation.status,
        )
    evaluation.status = status
    if status == Status.RUNNING:
        evaluation.reason, evaluation.started_at = None, evaluation.started_at or now
    if status in ENDED:
        evaluation.finished_at = now
        session.execute(delete(Part).where(Part.evaluation == evaluation.number))
