"""What running the programme needs: feeds of use, runs of jobs, operators, and the digests of the erased."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id


class UseFeed(Base):
    """A source of recorded use. The watermark says how far it is complete, where the source declares that."""

    __tablename__ = "use_feed"

    source: Mapped[str] = mapped_column(String(100), primary_key=True)
    complete_through: Mapped[datetime | None]
    last_event_at: Mapped[datetime | None]


class JobRun(Base):
    """One run of a calendar job for one period; or, with period ``queue``, the last run of a queue job.

    Inserting the key decides which process runs a period; this gates only the tick, effects have their own conditions.
    """

    __tablename__ = "job_run"

    job: Mapped[str] = mapped_column(String(30), primary_key=True)
    period: Mapped[str] = mapped_column(String(20), primary_key=True)
    due_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    result: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)


class ClockJump(Base):
    """The system clock was set while a process ran. Until an operator has confirmed the time, nothing final happens."""

    __tablename__ = "clock_jump"

    id: Mapped[Id]
    noticed_at: Mapped[datetime]
    """By the clock as it is since."""
    expected_at: Mapped[datetime]
    """What it would have shown at that moment, had nobody set it."""
    confirmed_at: Mapped[datetime | None]


class Operator(Base):
    __tablename__ = "operator"

    id: Mapped[Id]
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(320), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    locale: Mapped[str | None] = mapped_column(String(35))
    password_hash: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[datetime]
    session_generation: Mapped[int] = mapped_column(server_default="1")


class UsedAssertion(Base):
    """An assertion of the service that has signed somebody in, by the digest of its id: it is good once."""

    __tablename__ = "used_assertion"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Erasure(Base):
    """Keyed HMAC of the external_id of a purged member, so that an import cannot raise them again."""

    __tablename__ = "erasure"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    purged_at: Mapped[datetime]
