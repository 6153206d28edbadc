"""Writing down what happened: codes and surrogate ids, for one or for a whole selection."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, insert, literal, select
from sqlalchemy.orm import Session

from models import Case, Event
from models.base import UTCDateTime


def record(session: Session, code: str, now: datetime, *, detail: str | None = None, **ids: int | None) -> None:
    """``ids``: member_id, case_id, campaign_id, operator_id."""
    session.add(Event(at=now, code=code, detail=detail, **ids))
    session.flush()


def record_all(session: Session, selected: Select[*tuple[Any, ...]]) -> None:
    """``selected`` gives the columns at, code, detail, member_id, case_id, campaign_id."""
    columns = ["at", "code", "detail", "member_id", "case_id", "campaign_id"]
    session.execute(insert(Event).from_select(columns, selected))


def of_cases(code: str, detail: Any, now: datetime) -> Select[*tuple[Any, ...]]:
    """Such a selection for cases; the caller says which."""
    return select(
        literal(now, UTCDateTime()), literal(code), detail, Case.member_id, Case.id, Case.campaign_id
    ).select_from(Case)
