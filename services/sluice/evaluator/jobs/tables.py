"""The tables: evaluations, the values of their parts, and uploads. Times are seconds since 1970."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sluice.evaluator.jobs.life_cycle import Status

ID_LENGTH = 64
_NAME_LENGTH = 255


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Upload(Table):
    """A file that a client sent. It goes with the last evaluation of it, or after a day without one."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(_NAME_LENGTH))
    path: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double)


class Evaluation(Table):
    """`number` gives their order; `document` is read by itself, as it can be large."""

    __tablename__ = "evaluations"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(ID_LENGTH), unique=True)
    model: Mapped[str] = mapped_column(String(_NAME_LENGTH), index=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    upload: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"), index=True)
    status: Mapped[str] = mapped_column(String(16), index=True, default=Status.QUEUED)
    reason: Mapped[str | None] = mapped_column(Text)
    rows_done: Mapped[int] = mapped_column(BigInteger, default=0)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    rows_per_s: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    document: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)


class Part(Table):
    """The values of some rows of a run, as a compressed .npz."""

    __tablename__ = "parts"

    evaluation: Mapped[int] = mapped_column(ForeignKey("evaluations.number", ondelete="CASCADE"), primary_key=True)
    run: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    values: Mapped[bytes] = mapped_column(LargeBinary)
