"""Writing down what happened: codes and surrogate ids, for one or for a whole selection.

What the service is told of it is written down with it (services/outgoing/).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Insert, Select, String, insert, literal, select
from sqlalchemy.orm import Session

from models import Case, Event
from models.base import UTCDateTime
from services.outgoing import writing


def record(session: Session, code: str, now: datetime, *, detail: str | None = None, **ids: int | None) -> None:
    """``ids``: member_id, case_id, campaign_id, operator_id."""
    session.add(Event(at=now, code=code, detail=detail, **ids))
    session.flush()
    if writing.is_told(code):
        whose = (literal(ids.get(name), BigInteger()) for name in ("member_id", "case_id", "campaign_id"))
        writing.put_all(session, select(literal(now, UTCDateTime()), literal(code), literal(detail, String()), *whose))


def record_all(session: Session, selected: Select[*tuple[Any, ...]]) -> None:
    """``selected`` gives the columns at, code, detail, member_id, case_id, campaign_id and may give operator_id."""
    session.execute(inserted(selected))
    writing.put_all(session, selected)


def inserted(selected: Select[*tuple[Any, ...]]) -> Insert:
    """The statement that writes down what no service is told of."""
    columns = ["at", "code", "detail", "member_id", "case_id", "campaign_id", "operator_id"]
    return insert(Event).from_select(columns[: len(selected.selected_columns)], selected)


def of_cases(code: str, detail: Any, now: datetime) -> Select[*tuple[Any, ...]]:
    """Such a selection for cases; the caller says which."""
    return select(
        literal(now, UTCDateTime()), literal(code), detail, Case.member_id, Case.id, Case.campaign_id
    ).select_from(Case)
